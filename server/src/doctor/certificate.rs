//! The certificate files: whom they are for, until when, and whether a stranger's browser would believe them.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use jiff::Timestamp;
use x509_parser::prelude::{FromDer, X509Certificate};

use super::report::{Finding, Report};
use super::{Patient, relay};
use crate::config::{CertificateSource, PublicUrl};
use crate::tls::{self, CertificateStore, Files, acme, development};

/// From how many days before the end on a renewal is overdue: most authorities' clients renew at 30.
const RENEWAL_DAYS: i64 = 14;

const DAY: i64 = 86_400;

pub(super) fn check(report: &mut Report, patient: &Patient) {
    let settings = &patient.config.tls;
    let files = match (
        settings.source(),
        &settings.certificate_file,
        &settings.key_file,
    ) {
        (CertificateSource::Files, Some(certificate), Some(key)) => Files {
            certificate: certificate.clone(),
            key: key.clone(),
        },
        (CertificateSource::Acme, ..) => match by_acme(report, patient) {
            Some(files) => files,
            None => return,
        },
        _ => return,
    };
    let Files { certificate, key } = &files;
    if let Err(error) = CertificateStore::load(&files) {
        report.add(Finding::bad(
            "certificate",
            format!("{error:#}"),
            "name the PEM files of the chain and of its key in [tls], readable by the server",
        ));
        return;
    }
    if fs::metadata(key).is_ok_and(|metadata| metadata.mode() & 0o007 != 0) {
        report.add(Finding::bad(
            "key",
            format!("everybody on this machine can read {}", key.display()),
            format!("chmod o-rwx {}", key.display()),
        ));
    }
    let chain = tls::read_chain(certificate).unwrap_or_default();
    let Some(Ok((_, leaf))) = chain.first().map(|der| X509Certificate::from_der(der)) else {
        report.add(Finding::bad(
            "certificate",
            "can't be parsed",
            "get a new one from your authority",
        ));
        return;
    };
    report.add(lifetime(certificate, &leaf, Timestamp::now().as_second()));
    let site = patient.url.as_ref().map(PublicUrl::host);
    if let Some(host) = site {
        report.add(name(&leaf, host));
    }
    if let Some(host) = relay::host_told(patient)
        && site != Some(host)
        && relay::told(patient).tls_port.is_some()
    {
        report.add(name(&leaf, host));
    }
    let issuer_is_missing = chain.len() == 1 && leaf.issuer() != leaf.subject();
    report.add(if issuer_is_missing {
        Finding::bad(
            "chain",
            format!("{} holds the server's certificate alone", certificate.display()),
            "use the file that holds the intermediate certificates too (`fullchain.pem`): browsers may know them, phones and libraries don't",
        )
    } else {
        Finding::good("chain", format!("{} certificates lead toward a root", chain.len()))
    });
}

/// Where the certificate is that came by ACME; `None` where none did yet. Tells of an order that failed.
fn by_acme(report: &mut Report, patient: &Patient) -> Option<Files> {
    let (data, settings) = (&patient.config.data_dir, &patient.config.tls.acme);
    let files = acme::files(data, settings);
    let has_come = files.certificate.exists();
    let advice = format!(
        "TCP port 443 or 80 of {} has to reach this server, by the names' DNS as the internet sees it; then `offhook reload`",
        settings.domains.join(", ")
    );
    match (acme::failure(data, settings), has_come) {
        (Some(failure), _) => {
            let what = format!("the last order failed: {}", failure.trim());
            report.add(Finding::bad("ACME", what, advice));
        }
        (None, false) => {
            let what = "none has come yet, a self-signed certificate is served meanwhile";
            report.add(Finding::bad("ACME", what, advice));
        }
        (None, true) => report.add(Finding::good(
            "ACME",
            "the last order brought a certificate",
        )),
    }
    has_come.then_some(files)
}

fn lifetime(path: &Path, leaf: &X509Certificate<'_>, now: i64) -> Finding {
    let (start, end) = (
        leaf.validity().not_before.timestamp(),
        leaf.validity().not_after.timestamp(),
    );
    if now < start {
        return Finding::bad(
            "certificate",
            format!(
                "is not good yet: it starts {}, this machine's clock says {}",
                day(start),
                day(now)
            ),
            "set the clock (`timedatectl set-ntp true`); tokens and TURN credentials need it, too",
        );
    }
    let days = (end - now) / DAY;
    let renew = format!(
        "renew it into {}; the server takes it within a minute",
        path.display()
    );
    if now >= end {
        Finding::bad("certificate", format!("ended {}", day(end)), renew)
    } else if days < RENEWAL_DAYS {
        Finding::bad(
            "certificate",
            format!("ends in {days} days, {}", day(end)),
            renew,
        )
    } else {
        Finding::good("certificate", format!("is good until {}", day(end)))
    }
}

fn name(leaf: &X509Certificate<'_>, host: &str) -> Finding {
    let names = development::names_in(leaf);
    let list = names
        .iter()
        .map(String::as_str)
        .collect::<Vec<_>>()
        .join(", ");
    if names.iter().any(|name| covers(name, host)) {
        Finding::good("name", format!("the certificate is for {host}"))
    } else {
        Finding::bad(
            "name",
            format!("the certificate is for {list}, not for {host}"),
            format!("get one that names {host}, or change `public_url` (`public_host` in [relay])"),
        )
    }
}

/// Whether a certificate's name is that of `host`; a star stands for one label (RFC 6125 §6.4.3).
fn covers(name: &str, host: &str) -> bool {
    let host = host.to_lowercase();
    match name.strip_prefix("*.") {
        Some(rest) => host
            .split_once('.')
            .is_some_and(|(label, domain)| !label.is_empty() && domain == rest),
        None => name == host,
    }
}

fn day(seconds: i64) -> String {
    Timestamp::from_second(seconds).map_or_else(
        |_| "at no known time".to_owned(),
        |time| time.strftime("%Y-%m-%d").to_string(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_star_stands_for_one_label() {
        let rows = [
            ("calls.example.com", "calls.example.com", true),
            ("calls.example.com", "Calls.Example.com", true),
            ("*.example.com", "calls.example.com", true),
            ("*.example.com", "a.calls.example.com", false),
            ("*.example.com", "example.com", false),
            ("example.com", "calls.example.com", false),
            ("192.168.1.5", "192.168.1.5", true),
        ];
        for (name, host, expected) in rows {
            assert_eq!(covers(name, host), expected, "{name} {host}");
        }
    }

    #[test]
    fn the_lifetime_is_judged_by_the_clock() {
        let mut params = rcgen::CertificateParams::new(vec!["a".to_owned()]).unwrap();
        (params.not_before, params.not_after) = (
            rcgen::date_time_ymd(2020, 1, 1),
            rcgen::date_time_ymd(2020, 4, 1),
        );
        let made = params
            .self_signed(&rcgen::KeyPair::generate().unwrap())
            .unwrap();
        let (_, leaf) = X509Certificate::from_der(made.der()).unwrap();

        let rows = [
            (
                "2019-12-31",
                "is not good yet: it starts 2020-01-01, this machine's clock says 2019-12-31",
            ),
            ("2020-02-01", "is good until 2020-04-01"),
            ("2020-03-25", "ends in 7 days, 2020-04-01"),
            ("2020-04-02", "ended 2020-04-01"),
        ];
        for (today, expected) in rows {
            let now: Timestamp = format!("{today}T00:00:00Z").parse().unwrap();
            assert_eq!(
                lifetime(Path::new("c.pem"), &leaf, now.as_second()).what,
                expected
            );
        }
    }
}
