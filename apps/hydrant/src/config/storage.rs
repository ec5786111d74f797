//! `[records]` and `[objects]` of the configuration file: where the one service that owns tables and
//! images keeps them.

use std::path::{Path, PathBuf};

use hydrant_objects::Config as ObjectsConfig;
use hydrant_records::Address;
use serde::Deserialize;
use toml::Spanned;

use super::Mistake;

/// With what the names of the variables begin that hand this to a service: `HYDRANT_RECORDS`,
/// `HYDRANT_OBJECTS_REGION`.
const VARIABLES: [&str; 2] = ["HYDRANT_RECORDS", "HYDRANT_OBJECTS"];

/// Both tables.
#[derive(Debug, Default)]
pub(crate) struct Storage {
    records: Option<Records>,
    objects: Option<Objects>,
}

/// `[records]`: the database, and `[records.far]`: the one in the other data centre.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Records {
    name: Option<Spanned<String>>,
    url: Spanned<String>,
    password_file: Option<Spanned<PathBuf>>,
    tls: Option<Spanned<Tls>>,
    far: Option<Box<Records>>,
}

/// `[records.tls]`
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Tls {
    ca: PathBuf,
    certificate: Option<Spanned<PathBuf>>,
    key: Option<Spanned<PathBuf>>,
}

/// The longest name of a database, and of an object store.
const MAX_NAME: usize = 16;

/// `[objects]`: the object store, and `[objects.far]`: the one in the other data centre.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Objects {
    name: Option<Spanned<String>>,
    url: Spanned<String>,
    endpoint: Option<Spanned<String>>,
    region: Option<Spanned<String>>,
    credentials_file: Option<Spanned<PathBuf>>,
    far: Option<Box<Objects>>,
}

impl Storage {
    /// Checks the tables of a node that is one of several, or alone.
    pub(super) fn read(
        records: Option<Records>,
        objects: Option<Objects>,
        is_fleet: bool,
    ) -> Result<Self, Mistake> {
        if let Some(records) = &records {
            records.check(is_fleet)?;
        }
        if let Some(objects) = &objects {
            objects.check()?;
        }
        Ok(Self { records, objects })
    }

    /// Paths that are relative in the file begin where it lies.
    pub(super) fn start_paths_at(&mut self, folder: &Path) {
        let records = self.records.iter_mut().flat_map(Records::paths_mut);
        let objects = self.objects.iter_mut().flat_map(|near| {
            let far = near.far.as_mut().map(|far| &mut far.credentials_file);
            std::iter::once(&mut near.credentials_file).chain(far)
        });
        let objects = objects.flatten();
        for path in records.chain(objects.map(Spanned::get_mut)) {
            *path = folder.join(&*path);
        }
        if let Some(records) = &mut self.records
            && let Ok(Address::Sqlite(path)) = records.url.get_ref().parse()
        {
            *records.url.get_mut() = Address::Sqlite(folder.join(path)).to_string();
        }
    }

    /// The database, when the file names one.
    pub(crate) fn records(&self) -> Option<hydrant_records::Config> {
        let records = self.records.as_ref()?;
        let mut config = hydrant_records::Config::new(records.url.get_ref()).ok()?;
        config.password_file = records.password_file.as_ref().map(|f| f.get_ref().clone());
        config.tls = records.tls.as_ref().map(|tls| tls.get_ref().config());
        Some(config)
    }

    /// The object store, when the file names one.
    pub(crate) fn objects(&self) -> Option<ObjectsConfig> {
        self.objects.as_ref().map(Objects::config)
    }

    /// The variables by which a service learns where to keep what it owns. A server that is alone has a
    /// place for both in the service's folder; several need one that they share, and get none when none
    /// is named.
    pub(crate) fn environment(&self, folder: &Path, is_fleet: bool) -> Vec<(String, String)> {
        let records = self.records.as_ref().map(Records::environment);
        let records = records.unwrap_or_else(|| match is_fleet {
            true => Vec::new(),
            false => vec![(String::new(), own_records(folder).to_string())],
        });
        let objects = self.objects.as_ref().map(Objects::environment);
        let objects = objects.unwrap_or_else(|| match is_fleet {
            true => Vec::new(),
            false => vec![(String::new(), own_objects(folder).url)],
        });
        let [of_records, of_objects] = VARIABLES;
        let records = records.into_iter();
        let records = records.map(|(name, value)| (format!("{of_records}{name}"), value));
        let objects = objects.into_iter();
        let objects = objects.map(|(name, value)| (format!("{of_objects}{name}"), value));
        records.chain(objects).collect()
    }
}

/// The database of a server that is alone, when its file names none.
pub(crate) fn own_records(folder: &Path) -> Address {
    Address::Sqlite(folder.join("records.db"))
}

/// The object store of a server that is alone, when its file names none.
pub(crate) fn own_objects(folder: &Path) -> ObjectsConfig {
    ObjectsConfig {
        url: folder_url(&folder.join("objects")),
        ..ObjectsConfig::default()
    }
}

impl Records {
    fn check(&self, is_fleet: bool) -> Result<(), Mistake> {
        self.check_own(is_fleet)?;
        let Some(far) = &self.far else {
            return Ok(());
        };
        far.check_own(is_fleet)?;
        if let Some(third) = &far.far {
            let message = "there are two data centres: take this table out";
            return Err((third.url.span().start, message.into()));
        }
        for one in [self, far] {
            if one.url.get_ref().starts_with("sqlite:") {
                let message = "SQLite has no second data centre: write url = \"mysql://user@host:3306/database\"";
                return Err((one.url.span().start, message.into()));
            }
        }
        match (&self.name, &far.name) {
            (Some(near), Some(far)) if near.get_ref() == far.get_ref() => {
                let message = "two databases have this `name`: give each its own";
                Err((far.span().start, message.into()))
            }
            (Some(_), Some(_)) => Ok(()),
            (None, _) => Err((self.url.span().start, no_name("databases"))),
            (_, None) => Err((far.url.span().start, no_name("databases"))),
        }
    }

    fn check_own(&self, is_fleet: bool) -> Result<(), Mistake> {
        check_name(self.name.as_ref())?;
        let (url, at) = (self.url.get_ref(), self.url.span().start);
        let address = url.parse::<Address>();
        let address = address.map_err(|error| (at, format!("`url` names no database: {error}")))?;
        let is_file = matches!(address, Address::Sqlite(_));
        if is_file && url.contains('?') {
            return Err((
                at,
                "the path of a database has no options: take out the `?` and what follows".into(),
            ));
        }
        if is_file && is_fleet {
            let message = "SQLite is for one server, and [fleet] is for several, which need one database: \
                           write url = \"mysql://user@host:3306/database\"";
            return Err((at, message.into()));
        }
        let only_servers = (self.password_file.iter().map(|file| file.span().start))
            .chain(self.tls.iter().map(|tls| tls.span().start));
        if let Some(at) = only_servers.min().filter(|_| is_file) {
            let message = "a file of SQLite has neither password nor TLS; take this out";
            return Err((at, message.into()));
        }
        self.tls
            .as_ref()
            .map_or(Ok(()), |tls| tls.get_ref().check())
    }

    fn paths_mut(&mut self) -> Box<dyn Iterator<Item = &mut PathBuf> + '_> {
        let tls = self.tls.iter_mut().flat_map(|tls| {
            let Tls {
                ca,
                certificate,
                key,
            } = tls.get_mut();
            let others = certificate.iter_mut().chain(key).map(Spanned::get_mut);
            std::iter::once(ca).chain(others)
        });
        let password = self.password_file.iter_mut().map(Spanned::get_mut);
        let far = self.far.iter_mut();
        let far: Vec<_> = far.flat_map(|far| far.paths_mut()).collect();
        Box::new(password.chain(tls).chain(far))
    }

    fn environment(&self) -> Vec<(String, String)> {
        let far = self.far.iter().flat_map(|far| far.environment());
        let far = far.map(|(name, value)| (format!("_FAR{name}"), value));
        self.own_environment().into_iter().chain(far).collect()
    }

    fn own_environment(&self) -> Vec<(String, String)> {
        let tls = self.tls.as_ref().map(Spanned::get_ref);
        let certificate = tls.and_then(|tls| tls.certificate.as_ref());
        let key = tls.and_then(|tls| tls.key.as_ref());
        let files = [
            (
                "_PASSWORD_FILE",
                self.password_file.as_ref().map(Spanned::get_ref),
            ),
            ("_TLS_CA", tls.map(|tls| &tls.ca)),
            ("_TLS_CERTIFICATE", certificate.map(Spanned::get_ref)),
            ("_TLS_KEY", key.map(Spanned::get_ref)),
        ];
        let url = (String::new(), self.url.get_ref().clone());
        let name = self.name.as_ref().map(|name| name.get_ref().clone());
        let name = name.map(|name| ("_NAME".to_owned(), name));
        let files = files
            .into_iter()
            .filter_map(|(name, file)| Some((name.to_owned(), text(file?))));
        std::iter::once(url).chain(name).chain(files).collect()
    }
}

impl Tls {
    fn check(&self) -> Result<(), Mistake> {
        let alone = match (&self.certificate, &self.key) {
            (Some(certificate), None) => Some((certificate.span().start, "key")),
            (None, Some(key)) => Some((key.span().start, "certificate")),
            _ => None,
        };
        match alone {
            Some((at, other)) => Err((at, format!("this needs a `{other}` beside it"))),
            None => Ok(()),
        }
    }

    fn config(&self) -> hydrant_records::Tls {
        let certificate = self.certificate.as_ref().map(|file| file.get_ref().clone());
        let key = self.key.as_ref().map(|file| file.get_ref().clone());
        hydrant_records::Tls {
            ca: self.ca.clone(),
            identity: certificate.zip(key),
        }
    }
}

impl Objects {
    fn check(&self) -> Result<(), Mistake> {
        self.check_own()?;
        let Some(far) = &self.far else {
            return Ok(());
        };
        far.check_own()?;
        if let Some(third) = &far.far {
            let message = "there are two data centres: take this table out";
            return Err((third.url.span().start, message.into()));
        }
        match (&self.name, &far.name) {
            (Some(near), Some(far)) if near.get_ref() == far.get_ref() => {
                let message = "two object stores have this `name`: give each its own";
                Err((far.span().start, message.into()))
            }
            (Some(_), Some(_)) => Ok(()),
            (None, _) => Err((self.url.span().start, no_name("object stores"))),
            (_, None) => Err((far.url.span().start, no_name("object stores"))),
        }
    }

    fn check_own(&self) -> Result<(), Mistake> {
        check_name(self.name.as_ref())?;
        let (url, at) = (self.url.get_ref().as_str(), self.url.span().start);
        let is_folder = url.starts_with("file:///") && url.len() > "file:///".len();
        if !is_folder && !is_bucket(url) {
            let message = "`url` names no object store: write \"file:///var/lib/images\" or \
                           \"s3://bucket/prefix\"";
            return Err((at, message.into()));
        }
        let only_s3 = (self
            .endpoint
            .iter()
            .chain(&self.region)
            .map(|text| text.span().start))
        .chain(self.credentials_file.iter().map(|file| file.span().start));
        if let Some(at) = only_s3.min().filter(|_| is_folder) {
            return Err((
                at,
                "a folder has no such setting; take this line out".into(),
            ));
        }
        if !is_folder && self.credentials_file.is_none() {
            let message = "S3 needs a `credentials_file` with access_key_id = \"…\" and \
                           secret_access_key = \"…\"";
            return Err((at, message.into()));
        }
        let is_url = |text: &str| text.starts_with("http://") || text.starts_with("https://");
        match &self.endpoint {
            Some(endpoint) if !is_url(endpoint.get_ref()) => {
                let message = "`endpoint` is a URL, as \"https://s3.example.com\"";
                Err((endpoint.span().start, message.into()))
            }
            _ => Ok(()),
        }
    }

    fn config(&self) -> ObjectsConfig {
        let text =
            |value: &Option<Spanned<String>>| value.as_ref().map(|one| one.get_ref().clone());
        ObjectsConfig {
            name: text(&self.name),
            url: self.url.get_ref().clone(),
            endpoint: text(&self.endpoint),
            region: text(&self.region),
            credentials: self.credentials_file.as_ref().map(|f| f.get_ref().clone()),
        }
    }

    fn environment(&self) -> Vec<(String, String)> {
        let far = self.far.iter().flat_map(|far| far.environment());
        let far = far.map(|(name, value)| (format!("_FAR{name}"), value));
        let texts = [
            ("_NAME", &self.name),
            ("_ENDPOINT", &self.endpoint),
            ("_REGION", &self.region),
        ];
        let texts = texts.into_iter().filter_map(|(name, value)| {
            let value = value.as_ref()?.get_ref();
            Some((name.to_owned(), value.clone()))
        });
        let file = self.credentials_file.as_ref();
        let file = file.map(|file| ("_CREDENTIALS_FILE".to_owned(), text(file.get_ref())));
        let url = (String::new(), self.url.get_ref().clone());
        let own = std::iter::once(url).chain(texts).chain(file);
        own.chain(far).collect()
    }
}

/// What is said where one of two has no name.
fn no_name(of: &str) -> String {
    format!(
        "two {of} need a `name` each, which is the same in the files of both data centres: write \
         name = \"a\" and name = \"b\""
    )
}

fn check_name(name: Option<&Spanned<String>>) -> Result<(), Mistake> {
    match name.filter(|name| !is_name(name.get_ref())) {
        None => Ok(()),
        Some(name) => {
            let message = format!("`name` is 1 to {MAX_NAME} small letters, digits and hyphens");
            Err((name.span().start, message))
        }
    }
}

fn is_name(name: &str) -> bool {
    let is_good = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    (1..=MAX_NAME).contains(&name.len()) && name.bytes().all(is_good)
}

/// `s3://bucket` or `s3://bucket/prefix`.
fn is_bucket(url: &str) -> bool {
    let Some(rest) = url.strip_prefix("s3://") else {
        return false;
    };
    let (bucket, prefix) = rest.split_once('/').unwrap_or((rest, ""));
    let is_good = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    !bucket.is_empty()
        && bucket.bytes().all(is_good)
        && prefix.bytes().all(|byte| is_good(byte) || byte == b'/')
}

/// The URL of a folder: what is not plain in its path is escaped.
fn folder_url(folder: &Path) -> String {
    let mut url = "file://".to_owned();
    for byte in text(folder).bytes() {
        match byte {
            b'/' | b'-' | b'_' | b'.' | b'~' => url.push(byte.into()),
            _ if byte.is_ascii_alphanumeric() => url.push(byte.into()),
            _ => url += &format!("%{byte:02X}"),
        }
    }
    url
}

fn text(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}

#[cfg(test)]
mod tests {
    use super::super::File;
    use super::*;

    fn parse(text: &str) -> Result<File, String> {
        let read = File::parse(Path::new("/etc/h.toml"), text);
        read.map_err(|error| error.to_string())
    }

    fn environment(text: &str, is_fleet: bool) -> Vec<String> {
        let storage = parse(text).unwrap().storage;
        let all = storage.environment(Path::new("/data 1"), is_fleet);
        all.into_iter()
            .map(|(name, value)| format!("{name}={value}"))
            .collect()
    }

    #[test]
    fn a_server_that_is_alone_keeps_both_in_the_services_folder() {
        assert_eq!(
            environment("", false),
            [
                "HYDRANT_RECORDS=sqlite:/data 1/records.db",
                "HYDRANT_OBJECTS=file:///data%201/objects"
            ]
        );
        assert!(environment("", true).is_empty());
    }

    #[test]
    fn what_the_file_says_reaches_the_service_as_names_of_files() {
        let text = r#"
            [records]
            url = "mysql://h@db:3306/hydrant"
            password_file = "password"
            tls = { ca = "ca.pem", certificate = "c.pem", key = "c.key" }
            [objects]
            url = "s3://images/hydrant"
            endpoint = "http://127.0.0.1:9000"
            region = "eu-central-1"
            credentials_file = "/s3.toml"
        "#;
        let expected = [
            "HYDRANT_RECORDS=mysql://h@db:3306/hydrant",
            "HYDRANT_RECORDS_PASSWORD_FILE=/etc/password",
            "HYDRANT_RECORDS_TLS_CA=/etc/ca.pem",
            "HYDRANT_RECORDS_TLS_CERTIFICATE=/etc/c.pem",
            "HYDRANT_RECORDS_TLS_KEY=/etc/c.key",
            "HYDRANT_OBJECTS=s3://images/hydrant",
            "HYDRANT_OBJECTS_ENDPOINT=http://127.0.0.1:9000",
            "HYDRANT_OBJECTS_REGION=eu-central-1",
            "HYDRANT_OBJECTS_CREDENTIALS_FILE=/s3.toml",
        ];
        assert_eq!(environment(text, false), expected);
        let config = parse(text).unwrap().storage.records().unwrap();
        assert!(config.tls.unwrap().identity.is_some());
        let far = environment(
            "[objects]\nname = \"a\"\nurl = \"file:///a\"\n\
             [objects.far]\nname = \"b\"\nurl = \"s3://b\"\ncredentials_file = \"s3.toml\"",
            true,
        );
        let expected = [
            "HYDRANT_OBJECTS=file:///a",
            "HYDRANT_OBJECTS_NAME=a",
            "HYDRANT_OBJECTS_FAR=s3://b",
            "HYDRANT_OBJECTS_FAR_NAME=b",
            "HYDRANT_OBJECTS_FAR_CREDENTIALS_FILE=/etc/s3.toml",
        ];
        assert_eq!(far, expected);
        let far = environment(
            "[records]\nname = \"a\"\nurl = \"mysql://u@a/d\"\npassword_file = \"p\"\n\
             [records.far]\nname = \"b\"\nurl = \"mysql://u@b/d\"\npassword_file = \"q\"",
            true,
        );
        let expected = [
            "HYDRANT_RECORDS=mysql://u@a/d",
            "HYDRANT_RECORDS_NAME=a",
            "HYDRANT_RECORDS_PASSWORD_FILE=/etc/p",
            "HYDRANT_RECORDS_FAR=mysql://u@b/d",
            "HYDRANT_RECORDS_FAR_NAME=b",
            "HYDRANT_RECORDS_FAR_PASSWORD_FILE=/etc/q",
        ];
        assert_eq!(far, expected);
        let sqlite = environment("[records]\nurl = \"sqlite:a.db\"", false);
        assert_eq!(sqlite[0], "HYDRANT_RECORDS=sqlite:/etc/a.db");
    }

    #[test]
    fn each_mistake_has_its_place_and_its_mend() {
        let records = |rest: &str| format!("[records]\nurl = \"mysql://u@h/d\"\n{rest}");
        let objects = |rest: &str| format!("[objects]\nurl = \"s3://b/p\"\n{rest}");
        let two = |near: &str, far: &str| {
            format!(
                "[records]\nurl = \"mysql://u@a/d\"\n{near}\n[records.far]\nurl = \"mysql://u@b/d\"\n{far}"
            )
        };
        let far = |near: &str, far: &str| {
            format!(
                "[objects]\nurl = \"file:///x\"\n{near}\n[objects.far]\nurl = \"file:///y\"\n{far}"
            )
        };
        let fleet = "[fleet]\npeer = \"127.0.0.1:9\"\ncredentials = \"x\"\n\
                     [coordination]\nengine = \"zookeeper\"\nservers = [\"x:1\"]\n\
                     [state]\nengine = \"redis\"\nservers = [\"x:1\"]\n";
        for (text, place, part) in [
            ("[records]\n".into(), "1:1", "missing field `url`"),
            ("[records]\nurl = \"x\"".into(), "2:7", "sqlite:"),
            (
                "[records]\nurl = \"mysql://u:pw@h/d\"".into(),
                "2:7",
                "password file",
            ),
            (
                "[records]\nurl = \"sqlite:a?mode=ro\"".into(),
                "2:7",
                "no options",
            ),
            (
                "[records]\nurl = \"sqlite:a\"\npassword_file = \"p\"".into(),
                "3:17",
                "neither password nor TLS",
            ),
            (
                records("password = \"p\""),
                "3:1",
                "unknown field `password`",
            ),
            (
                records("[records.tls]\nca = \"x\"\nkey = \"y\""),
                "5:7",
                "`certificate`",
            ),
            (
                format!("{fleet}[records]\nurl = \"sqlite:a\""),
                "11:7",
                "mysql://",
            ),
            ("[objects]\nurl = \"/x\"".into(), "2:7", "file:///"),
            ("[objects]\nurl = \"s3:///p\"".into(), "2:7", "s3://bucket"),
            (
                "[objects]\nurl = \"file:///x\"\nregion = \"y\"".into(),
                "3:10",
                "take this line out",
            ),
            (objects(""), "2:7", "credentials_file"),
            (
                "[objects]\nname = \"A\"\nurl = \"file:///x\"".into(),
                "2:8",
                "small letters",
            ),
            (two("", "name = \"b\""), "2:7", "name = \"a\""),
            (two("name = \"a\"", ""), "5:7", "two databases"),
            (two("name = \"a\"", "name = \"a\""), "6:8", "its own"),
            (two("name = \"A\"", "name = \"b\""), "3:8", "small letters"),
            (
                "[records]\nname = \"a\"\nurl = \"sqlite:x\"\n\
                 [records.far]\nname = \"b\"\nurl = \"mysql://u@h/d\""
                    .into(),
                "3:7",
                "no second data centre",
            ),
            (far("", "name = \"b\""), "2:7", "name = \"a\""),
            (far("name = \"a\"", ""), "5:7", "name = \"a\""),
            (far("name = \"a\"", "name = \"a\""), "6:8", "its own"),
            (
                far("name = \"a\"", "region = \"x\""),
                "6:10",
                "take this line out",
            ),
            (
                far(
                    "name = \"a\"",
                    "name = \"b\"\n[objects.far.far]\nurl = \"file:///z\"",
                ),
                "8:7",
                "two data centres",
            ),
            (
                objects("credentials_file = \"x\"\nendpoint = \"h:9\""),
                "4:12",
                "https://",
            ),
        ] {
            let error = parse(&text).unwrap_err();
            assert!(
                error.starts_with(&format!("/etc/h.toml:{place}: ")),
                "{text}: {error}"
            );
            assert!(error.contains(part), "{text}: {error}");
            assert!(!error.contains("pw"), "{error}");
        }
    }
}
