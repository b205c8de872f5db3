//! The file of `offhook apply`: an Account's telephony in TOML.
//!
//! ```text
//! text ─▶ secrets and prompt files are taken out, and read ─▶ Telephony ─▶ laid over what there is ─▶ check() ─▶ lines of what is wrong
//! ```
//!
//! A section that is in the file is the whole of it: rows that aren't there go. A section that isn't in the file stays as it is.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use gateway_sip::digest::{Algorithm, Ha1};
use model::phone::rows::{
    DIGEST_REALM, Ha1s, Kind, Label, RowName, Secret, SecretField, SecretOf, SipUser, Telephony,
    Wrong,
};
use serde::Deserialize;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::prompts::PromptFile;
use crate::config::load::{explain, line_at, place};

/// The largest file that is read, in bytes.
const DOCUMENT_LEN_MAX: u64 = 16 * 1024 * 1024;

/// The largest file of a secret, in bytes.
const SECRET_FILE_LEN_MAX: u64 = 4_096;

/// What others on this machine may do with a file that they read.
const READ_BY_OTHERS: u32 = 0o004;

/// A file that was read and is right by itself.
pub struct Document {
    /// The Account it is about, by its id or its name; the only one, where it says none.
    pub account: Option<String>,
    /// The files of its prompts.
    pub prompts: Vec<PromptFile>,
    /// Files that everybody on this machine can read, though they hold a secret.
    pub exposed: Vec<PathBuf>,
    /// What the errors call it.
    name: String,
    text: String,
    sections: BTreeSet<Kind>,
    telephony: Telephony,
}

/// Where secrets and prompts that a file names come from.
pub struct Surroundings<'a> {
    /// The folder that paths in the file begin at.
    pub folder: &'a Path,
    /// The variables of the environment.
    pub variable: &'a dyn Fn(&str) -> Option<String>,
}

impl Document {
    /// Reads the file at `path`, the secrets it refers to, and the prompts.
    ///
    /// Fails with the file, the line and what should stand there instead; no error shows a secret.
    pub fn open(path: &Path) -> anyhow::Result<Self> {
        let shown = path.display().to_string();
        let text = read_limited(path, DOCUMENT_LEN_MAX)?;
        let folder = path
            .parent()
            .filter(|folder| !folder.as_os_str().is_empty())
            .unwrap_or(Path::new("."));
        let surroundings = Surroundings {
            folder,
            variable: &|name| std::env::var(name).ok(),
        };
        let mut document = Self::parse(&shown, text, &surroundings)?;
        if document.holds_secrets() && is_exposed(path) {
            document.exposed.push(path.to_owned());
        }
        Ok(document)
    }

    /// Reads `text`, which errors call `name`.
    pub fn parse(
        name: &str,
        text: String,
        surroundings: &Surroundings<'_>,
    ) -> anyhow::Result<Self> {
        let mut reader = Reader {
            name,
            text: &text,
            surroundings,
            secrets: BTreeMap::new(),
            prompts: BTreeMap::new(),
            exposed: Vec::new(),
        };
        let mut root =
            DeTable::parse(&text).map_err(|error| anyhow::anyhow!(explain(name, &text, &error)))?;
        let account = reader.take_account(root.get_mut())?;
        reader.take_secrets(root.get_mut())?;
        reader.take_prompts(root.get_mut())?;
        let sections = root
            .get_ref()
            .keys()
            .filter_map(|key| Kind::of_section(key.get_ref()))
            .collect();
        let Reader {
            secrets,
            prompts,
            exposed,
            ..
        } = reader;
        let mut telephony = Telephony::deserialize(toml::Deserializer::from(root))
            .map_err(|error| anyhow::anyhow!(explain(name, &text, &error)))?;
        telephony.set_secrets(secrets);
        let mut files = Vec::new();
        for (name, (file, label)) in prompts {
            telephony.prompts.insert(name, file.row(label));
            files.push(file);
        }
        Ok(Self {
            account,
            prompts: files,
            exposed,
            name: name.to_owned(),
            sections,
            telephony,
            text,
        })
    }

    /// What an Account has once this file is applied to what it had.
    pub fn over(&self, before: &Telephony) -> Telephony {
        let mut after = before.clone();
        let told = self.telephony.clone();
        for kind in &self.sections {
            match kind {
                Kind::Dialling => after.dialling = told.dialling.clone(),
                Kind::Limits => after.limits = told.limits,
                Kind::Emergency => after.emergency = told.emergency.clone(),
                Kind::Callers => after.callers = told.callers.clone(),
                Kind::Prompts => after.prompts = told.prompts.clone(),
                Kind::Hours => after.hours = told.hours.clone(),
                Kind::Trunks => after.trunks = told.trunks.clone(),
                Kind::Queues => after.queues = told.queues.clone(),
                Kind::Menus => after.menus = told.menus.clone(),
                Kind::Pins => after.pins = told.pins.clone(),
                Kind::Users => after.users = told.users.clone(),
                Kind::Phones => after.phones = told.phones.clone(),
                Kind::Numbers => after.numbers = told.numbers.clone(),
            }
        }
        after
    }

    /// Fails with everything that is wrong with what the Account would have, a line each, with where the file says so.
    pub fn refuse_wrong(&self, after: &Telephony) -> anyhow::Result<()> {
        let lines: Vec<_> = after
            .check()
            .iter()
            .map(|wrong| {
                let at = place(&self.name, self.line_of(wrong));
                format!("{at}: {wrong}")
            })
            .collect();
        if lines.is_empty() {
            Ok(())
        } else {
            bail!("{}", lines.join("\n"))
        }
    }

    /// The line of the deepest part of the place that the file has; `None` for what it has nothing of.
    fn line_of(&self, wrong: &Wrong) -> Option<usize> {
        let document = DeTable::parse(&self.text).ok()?;
        let mut table = document.get_ref();
        let mut line = None;
        for key in &wrong.at {
            let Some((name, value)) = table.get_key_value(key.as_str()) else {
                break;
            };
            line = Some(line_at(&self.text, name.span().start));
            match value.get_ref() {
                DeValue::Table(inner) => table = inner,
                _ => break,
            }
        }
        line
    }

    /// Whether a secret itself stands in the file.
    fn holds_secrets(&self) -> bool {
        let Ok(document) = DeTable::parse(&self.text) else {
            return false;
        };
        SECRETS.iter().any(|(kind, fields)| {
            let rows = document.get_ref().get(kind.section());
            let rows = rows.and_then(|rows| rows.get_ref().as_table());
            rows.into_iter()
                .flat_map(|rows| rows.values())
                .filter_map(|row| row.get_ref().as_table())
                .any(|row| fields.iter().any(|field| row.contains_key(*field)))
        })
    }
}

/// Which rows have secrets, and by which words.
const SECRETS: [(Kind, &[&str]); 3] = [
    (Kind::Trunks, &["password"]),
    (Kind::Pins, &["pin"]),
    (Kind::Phones, &["password", "ha1", "ha1_sha256"]),
];

/// Takes out of a document what rows don't hold themselves.
struct Reader<'a> {
    name: &'a str,
    text: &'a str,
    surroundings: &'a Surroundings<'a>,
    secrets: BTreeMap<SecretOf, Secret>,
    prompts: BTreeMap<RowName, (PromptFile, Option<Label>)>,
    exposed: Vec<PathBuf>,
}

impl Reader<'_> {
    /// `file:line: why`.
    fn error(&self, at: usize, why: impl std::fmt::Display) -> anyhow::Error {
        let line = line_at(self.text, at);
        anyhow::anyhow!("{}: {why}", place(self.name, Some(line)))
    }

    fn take_account(&self, root: &mut DeTable<'_>) -> anyhow::Result<Option<String>> {
        match root.remove("account") {
            None => Ok(None),
            Some(value) => match value.get_ref() {
                DeValue::String(account) => Ok(Some(account.clone().into_owned())),
                _ => Err(self.error(
                    value.span().start,
                    "`account` is the id or the name of an Account, in quotes",
                )),
            },
        }
    }

    fn take_secrets(&mut self, root: &mut DeTable<'_>) -> anyhow::Result<()> {
        for (kind, fields) in SECRETS {
            for (name, row) in rows_of(root, kind) {
                for field in fields {
                    if let Some((secret, at)) = self.take_secret(row, field)? {
                        self.keep(kind, &name, field, &secret)
                            .map_err(|why| self.error(at, why))?;
                    }
                }
            }
        }
        Ok(())
    }

    /// Takes `field`, `field_file` or `field_env` out of a row: the secret, and where it stands.
    fn take_secret(
        &mut self,
        row: &mut DeTable<'_>,
        field: &str,
    ) -> anyhow::Result<Option<(String, usize)>> {
        let mut found: Option<(String, usize)> = None;
        for suffix in ["", "_file", "_env"] {
            let key = format!("{field}{suffix}");
            let Some((word, value)) = row.remove_entry(key.as_str()) else {
                continue;
            };
            let at = word.span().start;
            let DeValue::String(value) = value.get_ref() else {
                return Err(self.error(
                    at,
                    format!(
                        "`{key}` is not in quotes; it is not shown here, for it may be a secret"
                    ),
                ));
            };
            if found.is_some() {
                return Err(self.error(
                    at,
                    format!("`{key}` says again what stands there already: keep one of `{field}`, `{field}_file` and `{field}_env`"),
                ));
            }
            let secret = match suffix {
                "_file" => self
                    .secret_in_file(value)
                    .map_err(|error| self.error(at, format!("`{key}`: {error:#}")))?,
                "_env" => (self.surroundings.variable)(value).ok_or_else(|| {
                    self.error(at, format!("`{key}`: there is no variable {value}"))
                })?,
                _ => value.clone().into_owned(),
            };
            found = Some((secret, at));
        }
        Ok(found)
    }

    /// The first line of a file; an editor's line break at its end is none of the secret.
    fn secret_in_file(&mut self, path: &str) -> anyhow::Result<String> {
        let path = self.surroundings.folder.join(path);
        let text = read_limited(&path, SECRET_FILE_LEN_MAX)?;
        if is_exposed(&path) && !self.exposed.contains(&path) {
            self.exposed.push(path.clone());
        }
        let mut lines = text.lines();
        let secret = lines.next().unwrap_or_default().to_owned();
        if lines.any(|line| !line.is_empty()) {
            bail!("{} has more than one line", path.display());
        }
        Ok(secret)
    }

    /// Keeps a secret as its row does: of a phone's password, the hashes alone.
    fn keep(&mut self, kind: Kind, name: &str, field: &str, secret: &str) -> anyhow::Result<()> {
        let mut put = |field, secret: Secret| {
            let of = SecretOf {
                kind,
                name: name.to_owned(),
                field,
            };
            self.secrets.insert(of, secret)
        };
        let twice = match (kind, field) {
            (Kind::Phones, "password") => {
                // What is no SIP user is told, with its line, by whoever reads the row.
                let user: Option<SipUser> = name.parse().ok();
                Secret::new(secret)?;
                let ha1s = user.map(|user| ha1s(&user, secret)).transpose()?;
                ha1s.and_then(|ha1s| {
                    let sha256 = ha1s.sha256.and_then(|it| put(SecretField::Ha1Sha256, it));
                    put(SecretField::Ha1Md5, ha1s.md5).or(sha256)
                })
            }
            (Kind::Phones, "ha1") => put(SecretField::Ha1Md5, Ha1s::new(secret, None)?.md5),
            (Kind::Phones, _) => {
                let ha1s = Ha1s::new(&"0".repeat(32), Some(secret))?;
                ha1s.sha256.and_then(|it| put(SecretField::Ha1Sha256, it))
            }
            (Kind::Pins, _) => put(SecretField::Pin, Secret::new(secret)?),
            _ => put(SecretField::Password, Secret::new(secret)?),
        };
        match twice {
            None => Ok(()),
            Some(_) => bail!("a phone has a password or its hash, not both"),
        }
    }

    /// Takes out the prompts that name a file, and reads those.
    fn take_prompts(&mut self, root: &mut DeTable<'_>) -> anyhow::Result<()> {
        /// What a row with a file says besides.
        #[derive(Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Told {
            label: Option<Label>,
        }

        let section = root.get_mut(Kind::Prompts.section()).map(Spanned::get_mut);
        let Some(DeValue::Table(rows)) = section else {
            return Ok(());
        };
        let named: Vec<String> = rows
            .iter()
            .filter(|(_, row)| {
                row.get_ref()
                    .as_table()
                    .is_some_and(|row| row.contains_key("file"))
            })
            .map(|(name, _)| name.get_ref().clone().into_owned())
            .collect();
        for name in named {
            let Some((word, row)) = rows.remove_entry(name.as_str()) else {
                continue;
            };
            let (at, span) = (word.span().start, row.span());
            let DeValue::Table(mut row) = row.into_inner() else {
                continue;
            };
            let name: RowName = name.parse().map_err(|why| self.error(at, why))?;
            let Some((word, path)) = row.remove_entry("file") else {
                continue;
            };
            let at = word.span().start;
            let DeValue::String(path) = path.get_ref() else {
                return Err(self.error(at, "`file` is the name of a file, in quotes"));
            };
            let file = PromptFile::open(&self.surroundings.folder.join(path.as_ref()))
                .map_err(|error| self.error(at, format!("{error:#}")))?;
            let told = Told::deserialize(toml::Deserializer::from(Spanned::new(span, row)))
                .map_err(|error| anyhow::anyhow!(explain(self.name, self.text, &error)))?;
            self.prompts.insert(name, (file, told.label));
        }
        Ok(())
    }
}

/// HA1 of a phone by both hashes.
fn ha1s(user: &SipUser, password: &str) -> anyhow::Result<Ha1s> {
    let [md5, sha256] = [Algorithm::Md5, Algorithm::Sha256]
        .map(|algorithm| Ha1::new(algorithm, user.as_str(), DIGEST_REALM, password));
    Ok(Ha1s::new(md5.reveal_hex(), Some(sha256.reveal_hex()))?)
}

/// The rows of a section that are tables; others are told by whoever reads them.
fn rows_of<'a, 'i>(
    root: &'a mut DeTable<'i>,
    kind: Kind,
) -> impl Iterator<Item = (String, &'a mut DeTable<'i>)> {
    let section = root.get_mut(kind.section()).map(Spanned::get_mut);
    let rows = match section {
        Some(DeValue::Table(rows)) => Some(rows),
        _ => None,
    };
    rows.into_iter()
        .flat_map(|rows| rows.iter_mut())
        .filter_map(|(name, row)| match row.get_mut() {
            DeValue::Table(row) => Some((name.get_ref().clone().into_owned(), row)),
            _ => None,
        })
}

fn read_limited(path: &Path, len_max: u64) -> anyhow::Result<String> {
    let shown = path.display();
    let metadata = fs::metadata(path).with_context(|| format!("can't read {shown}"))?;
    if metadata.len() > len_max {
        bail!("{shown} is larger than {len_max} bytes");
    }
    fs::read_to_string(path).with_context(|| format!("can't read {shown}"))
}

fn is_exposed(path: &Path) -> bool {
    fs::metadata(path).is_ok_and(|metadata| metadata.permissions().mode() & READ_BY_OTHERS != 0)
}
