//! A certificate for the local network, from an own authority kept in the data directory.
//!
//! Browsers warn of it once per device; whoever adds `authority.pem` to a device's trusted authorities sees no warning. It names every
//! address of this machine and is made anew when those change or its end is near.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::{Path, PathBuf};

use anyhow::Context;
use jiff::{Span, Timestamp, Zoned, tz::TimeZone};
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, SanType,
};
use rustls::pki_types::CertificateDer;
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};

use crate::state::{DataDir, write_private};

/// Its folder in the data directory.
const FOLDER: &str = "development";

/// How long a certificate is good for, in days; Apple's devices refuse more than 398.
const CERTIFICATE_DAYS: i64 = 397;

/// How long the authority is good for, in days.
const AUTHORITY_DAYS: i64 = 3650;

/// How many days before its end a certificate is replaced.
const RENEW_DAYS: i64 = 30;

/// Where the certificate, its key and the authority are.
#[derive(Debug, Clone)]
pub struct Files {
    /// The certificate, in PEM.
    pub certificate: PathBuf,
    /// Its private key, in PEM.
    pub key: PathBuf,
    /// The authority's certificate, in PEM: what a device can be told to trust.
    pub authority: PathBuf,
}

impl Files {
    /// What is served.
    pub fn served(&self) -> super::Files {
        super::Files {
            certificate: self.certificate.clone(),
            key: self.key.clone(),
        }
    }
}

/// Where the files of the data directory `data` are, whether or not they were made yet.
pub fn files(data: &Path) -> Files {
    let folder = data.join(FOLDER);
    Files {
        certificate: folder.join("certificate.pem"),
        key: folder.join("certificate.key"),
        authority: folder.join("authority.pem"),
    }
}

/// Makes sure that `data` has a certificate for `localhost` and each of `addresses` that is good for a month at least.
pub fn ensure(data: &DataDir, addresses: &[IpAddr]) -> anyhow::Result<Files> {
    data.folder(FOLDER)?;
    let files = files(data.path());
    let authority_key = files.authority.with_extension("key");
    let names = names(addresses);

    let kept = std::fs::read_to_string(&authority_key)
        .ok()
        .and_then(|pem| KeyPair::from_pem(&pem).ok());
    let (authority, is_new) = match (kept, is_good(&files.authority, None)) {
        (Some(key), true) => (key, false),
        _ => (new_authority(&files.authority, &authority_key)?, true),
    };
    if is_new || !files.key.exists() || !is_good(&files.certificate, Some(&names)) {
        issue(&files, &authority, addresses)?;
    }
    Ok(files)
}

fn new_authority(certificate: &Path, key: &Path) -> anyhow::Result<KeyPair> {
    let pair = KeyPair::generate()?;
    let mut params = CertificateParams::default();
    set_lifetime(&mut params, AUTHORITY_DAYS)?;
    params
        .distinguished_name
        .push(DnType::CommonName, "Offhook development authority");
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    let made = params.self_signed(&pair).context("development authority")?;
    write_private(key, pair.serialize_pem().as_bytes())?;
    write_private(certificate, made.pem().as_bytes())?;
    Ok(pair)
}

fn issue(files: &Files, authority: &KeyPair, addresses: &[IpAddr]) -> anyhow::Result<()> {
    let authority_pem = std::fs::read_to_string(&files.authority)?;
    let issuer =
        Issuer::from_ca_cert_pem(&authority_pem, authority).context("development authority")?;
    let pair = KeyPair::generate()?;
    let mut params = CertificateParams::new(vec!["localhost".to_owned()])?;
    params
        .subject_alt_names
        .extend(addresses.iter().map(|ip| SanType::IpAddress(*ip)));
    set_lifetime(&mut params, CERTIFICATE_DAYS)?;
    params
        .distinguished_name
        .push(DnType::CommonName, "Offhook on the local network");
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    params.use_authority_key_identifier_extension = true;
    let made = params
        .signed_by(&pair, &issuer)
        .context("development certificate")?;

    write_private(&files.key, pair.serialize_pem().as_bytes())?;
    write_private(&files.certificate, (made.pem() + &authority_pem).as_bytes())
}

fn set_lifetime(params: &mut CertificateParams, days: i64) -> anyhow::Result<()> {
    let now = Timestamp::now().to_zoned(TimeZone::UTC);
    // Since yesterday: the clock of a phone may be behind ours.
    let (start, end) = (
        now.checked_sub(Span::new().days(1))?,
        now.checked_add(Span::new().days(days - 1))?,
    );
    let midnight = |day: &Zoned| {
        let part = |number: i8| u8::try_from(number).unwrap_or(1); // Months and days count from 1.
        rcgen::date_time_ymd(i32::from(day.year()), part(day.month()), part(day.day()))
    };
    (params.not_before, params.not_after) = (midnight(&start), midnight(&end));
    Ok(())
}

/// Whether the first certificate in `path` holds for another month and, where `names` is given, names exactly those.
fn is_good(path: &Path, names: Option<&BTreeSet<String>>) -> bool {
    let Ok(chain) = super::read_chain(path) else {
        return false;
    };
    let Some(Ok((_, certificate))) = chain.first().map(|der| X509Certificate::from_der(der)) else {
        return false;
    };
    let now = Timestamp::now().as_second();
    let validity = certificate.validity();
    validity.not_before.timestamp() <= now
        && validity.not_after.timestamp() > now + RENEW_DAYS * 86_400
        && names.is_none_or(|names| *names == names_in(&certificate))
}

fn names(addresses: &[IpAddr]) -> BTreeSet<String> {
    addresses
        .iter()
        .map(IpAddr::to_string)
        .chain(["localhost".to_owned()])
        .collect()
}

/// The host names and addresses a certificate is for.
pub fn names_in(certificate: &X509Certificate<'_>) -> BTreeSet<String> {
    let Ok(Some(extension)) = certificate.subject_alternative_name() else {
        return BTreeSet::new();
    };
    let name = |name: &GeneralName<'_>| match name {
        GeneralName::DNSName(name) => Some((*name).to_lowercase()),
        GeneralName::IPAddress(octets) => match octets.len() {
            4 => <[u8; 4]>::try_from(*octets)
                .ok()
                .map(|octets| Ipv4Addr::from(octets).to_string()),
            _ => <[u8; 16]>::try_from(*octets)
                .ok()
                .map(|octets| Ipv6Addr::from(octets).to_string()),
        },
        _ => None,
    };
    extension
        .value
        .general_names
        .iter()
        .filter_map(name)
        .collect()
}

/// The names in a certificate in DER; empty when it can't be read.
pub fn names_in_der(der: &CertificateDer<'_>) -> BTreeSet<String> {
    X509Certificate::from_der(der)
        .map(|(_, certificate)| names_in(&certificate))
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ips(texts: &[&str]) -> Vec<IpAddr> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    #[test]
    fn the_certificate_is_kept_until_the_addresses_change_and_the_authority_for_good() {
        let dir = tempfile::tempdir().unwrap();
        let data = DataDir::open(dir.path()).unwrap();
        let read = |path: &Path| std::fs::read_to_string(path).unwrap();

        let files = ensure(&data, &ips(&["127.0.0.1", "::1", "192.168.1.5"])).unwrap();
        let (first, authority) = (read(&files.certificate), read(&files.authority));
        let chain = super::super::read_chain(&files.certificate).unwrap();
        assert_eq!(
            names_in_der(&chain[0]),
            names(&ips(&["127.0.0.1", "::1", "192.168.1.5"]))
        );
        assert!(super::super::CertificateStore::load(&files.served()).is_ok());

        ensure(&data, &ips(&["192.168.1.5", "127.0.0.1", "::1"])).unwrap();
        assert_eq!(read(&files.certificate), first);

        ensure(&data, &ips(&["127.0.0.1", "::1", "192.168.1.6"])).unwrap();
        assert_ne!(read(&files.certificate), first);
        assert_eq!(read(&files.authority), authority);
    }

    #[test]
    fn damaged_files_are_made_anew() {
        let dir = tempfile::tempdir().unwrap();
        let data = DataDir::open(dir.path()).unwrap();
        let files = ensure(&data, &ips(&["127.0.0.1"])).unwrap();
        for path in [&files.certificate, &files.authority] {
            std::fs::write(path, "nonsense").unwrap();
            let files = ensure(&data, &ips(&["127.0.0.1"])).unwrap();
            assert!(super::super::CertificateStore::load(&files.served()).is_ok());
        }
    }
}
