use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use hydrant_contracts::{Identity, ServerName};
use hydrant_runtime::Clock;
use rustls::pki_types::UnixTime;

use super::authority::{Authority, Wanted};
use super::certificate::{Certificate, read_chain};
use super::credentials::{Credentials, check_chain};
use crate::failure::{Failure, Result};

const DAY: u64 = 24 * 3600;

struct Fleet {
    temp: tempfile::TempDir,
}

impl Fleet {
    fn init() -> Self {
        let temp = tempfile::tempdir().unwrap();
        Authority::init(&temp.path().join("fleet"), 3650, None, Clock::system()).unwrap();
        Self { temp }
    }

    fn folder(&self) -> PathBuf {
        self.temp.path().join("fleet")
    }

    fn authority(&self) -> Authority {
        Authority::open(&self.folder(), Clock::system()).unwrap()
    }

    fn try_issue(&self, name: &str, overwrite: bool) -> Result<Certificate> {
        self.authority().issue(&Wanted {
            server: &server(name),
            folder: &self.folder().join(name),
            addresses: &["10.0.0.1".parse().unwrap()],
            days: 365,
            overwrite,
        })
    }

    fn issue(&self, name: &str) -> PathBuf {
        self.try_issue(name, true).unwrap();
        self.folder().join(name)
    }

    /// What a server with this folder thinks of the certificate in `shown`, of `name`.
    fn believes(&self, folder: &Path, shown: &Path, name: &str) -> bool {
        let authorities = read_chain(&folder.join("ca.pem"), "").unwrap();
        let chain = read_chain(&shown.join("node.pem"), "").unwrap();
        check_chain(&authorities, &chain, &server(name), UnixTime::now()).is_ok()
    }

    fn copy(&self, folder: &Path, to: &str) -> PathBuf {
        let to = self.temp.path().join(to);
        fs::create_dir(&to).unwrap();
        for entry in fs::read_dir(folder).unwrap().map(|entry| entry.unwrap()) {
            fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
        }
        to
    }
}

fn server(name: &str) -> ServerName {
    name.parse().unwrap()
}

fn told<T>(result: Result<T>) -> String {
    match result {
        Err(Failure::Error(error)) => format!("{}: {error}", error.reason),
        _ => panic!("not refused"),
    }
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}

#[test]
fn credentials_prove_their_server_and_no_other() {
    let fleet = Fleet::init();
    let folder = fleet.issue("one");
    let one = server("one");
    let credentials = Credentials::new(&folder, &one);
    credentials.proof(UnixTime::now()).unwrap();
    let two = server("two");
    let error = told(Credentials::new(&folder, &two).proof(UnixTime::now()));
    assert!(
        error.contains("is of one.servers.hydrant, and this server is `two`"),
        "{error}"
    );
    assert!(error.contains("hydrant ca issue two"), "{error}");
}

#[test]
fn a_certificate_has_a_beginning_and_an_end() {
    let fleet = Fleet::init();
    let folder = fleet.issue("one");
    let one = server("one");
    let at = |days: u64| {
        let now = UnixTime::now().as_secs() + days * DAY;
        Credentials::new(&folder, &one).proof(UnixTime::since_unix_epoch(Duration::from_secs(now)))
    };
    at(364).unwrap();
    let error = told(at(366));
    assert!(error.starts_with("certificate_expired: "), "{error}");
    assert!(error.contains("--overwrite"), "{error}");
    let before = UnixTime::since_unix_epoch(Duration::from_secs(1));
    let error = told(Credentials::new(&folder, &one).proof(before));
    assert!(error.starts_with("certificate_too_new: "), "{error}");
}

#[test]
fn the_tokens_of_a_fleet_are_made_with_one_key() {
    let fleet = Fleet::init();
    let (one, two) = (fleet.issue("one"), fleet.issue("two"));
    let key = |folder: &Path| {
        Credentials::new(folder, &server("any"))
            .token_key()
            .unwrap()
    };
    let token = key(&one).issue(&Identity::Operator);
    assert_eq!(key(&two).verify(&token), Ok(Identity::Operator));

    let given = fleet.temp.path().join("key");
    fs::write(&given, [7; 32]).unwrap();
    fs::set_permissions(&given, Permissions::from_mode(0o600)).unwrap();
    let other = fleet.temp.path().join("other");
    Authority::init(&other, 10, Some(&given), Clock::system()).unwrap();
    assert_eq!(fs::read(other.join("token.key")).unwrap(), [7; 32]);
}

#[test]
fn keys_are_their_owners_alone() {
    let fleet = Fleet::init();
    let folder = fleet.issue("one");
    for key in ["token.key", "node.key"] {
        assert_eq!(mode(&folder.join(key)), 0o600, "{key}");
    }
    for key in ["token.key", "ca.key"] {
        assert_eq!(mode(&fleet.folder().join(key)), 0o600, "{key}");
    }
    assert_eq!(mode(&folder), 0o700);
    let one = server("one");
    let credentials = Credentials::new(&folder, &one);
    for key in ["token.key", "node.key"] {
        fs::set_permissions(folder.join(key), Permissions::from_mode(0o640)).unwrap();
    }
    for error in [
        told(credentials.token_key()),
        told(credentials.proof(UnixTime::now())),
    ] {
        assert!(error.contains("(mode 640)"), "{error}");
        assert!(error.contains("chmod 600"), "{error}");
    }
}

#[test]
fn what_is_missing_or_mixed_up_is_said() {
    let fleet = Fleet::init();
    let (one, two) = (fleet.issue("one"), fleet.issue("two"));
    let name = server("one");
    let proof = |folder: &Path| told(Credentials::new(folder, &name).proof(UnixTime::now()));
    for file in ["ca.pem", "node.pem", "node.key"] {
        let folder = fleet.copy(&one, &format!("without-{file}"));
        fs::remove_file(folder.join(file)).unwrap();
        let error = proof(&folder);
        assert!(
            error.contains(&format!("{file}; make the folder with")),
            "{error}"
        );
        fs::write(folder.join(file), "x").unwrap();
        fs::set_permissions(folder.join(file), Permissions::from_mode(0o600)).unwrap();
        assert!(proof(&folder).starts_with("damaged_file: "), "{file}");
    }
    let mixed = fleet.copy(&one, "mixed");
    fs::copy(two.join("node.key"), mixed.join("node.key")).unwrap();
    assert!(proof(&mixed).starts_with("other_key: "));
    let foreign = fleet.copy(&one, "foreign");
    fs::copy(
        Fleet::init().folder().join("ca.pem"),
        foreign.join("ca.pem"),
    )
    .unwrap();
    assert!(proof(&foreign).starts_with("other_authority: "));
    fs::write(mixed.join("token.key"), "short").unwrap();
    let error = told(Credentials::new(&mixed, &name).token_key());
    assert!(error.contains("5 bytes instead of 32"), "{error}");
}

#[test]
fn nothing_is_written_over_unasked() {
    let fleet = Fleet::init();
    let again = Authority::init(&fleet.folder(), 10, None, Clock::system());
    assert!(told(again.map(|_| ())).starts_with("exists: "));
    let folder = fleet.issue("one");
    let before = fs::read(folder.join("node.key")).unwrap();
    assert!(told(fleet.try_issue("one", false)).contains("--overwrite"));
    assert_eq!(fs::read(folder.join("node.key")).unwrap(), before);
    fleet.issue("one");
    assert_ne!(fs::read(folder.join("node.key")).unwrap(), before);
}

#[test]
fn servers_change_to_a_new_authority_one_after_the_other() {
    let fleet = Fleet::init();
    let one_before = fleet.copy(&fleet.issue("one"), "one-before");
    let two_before = fleet.copy(&fleet.issue("two"), "two-before");
    fleet.authority().rotate(3650).unwrap();
    let one = fleet.issue("one");
    assert!(
        fleet.believes(&two_before, &one, "one"),
        "who knows only the old one"
    );
    assert!(
        fleet.believes(&one, &two_before, "two"),
        "who has changed already"
    );
    assert!(told(fleet.authority().rotate(10).map(|_| ())).starts_with("rotation_under_way: "));

    let two = fleet.issue("two");
    fleet.authority().retire().unwrap();
    assert!(told(fleet.authority().retire().map(|_| ())).starts_with("no_rotation: "));
    for folder in [&one, &two] {
        fs::copy(fleet.folder().join("ca.pem"), folder.join("ca.pem")).unwrap();
    }
    assert!(fleet.believes(&one, &two, "two"));
    assert!(
        !fleet.believes(&one, &two_before, "two"),
        "the old one is retired"
    );
    assert!(
        !fleet.believes(&one, &one_before, "one"),
        "the old one is retired"
    );
    let three = fleet.issue("three");
    assert!(fleet.believes(&one, &three, "three"));
    assert_eq!(read_chain(&three.join("node.pem"), "").unwrap().len(), 1);
}

#[test]
fn a_rotation_that_broke_off_is_begun_again() {
    let fleet = Fleet::init();
    let one = fleet.issue("one");
    let key = fs::read(fleet.folder().join("ca.key")).unwrap();
    fleet.authority().rotate(3650).unwrap();
    // The key is what is written last.
    fs::write(fleet.folder().join("ca.key"), key).unwrap();
    let two = fleet.issue("two");
    assert!(fleet.believes(&one, &two, "two"));
    fleet.authority().rotate(3650).unwrap();
    assert_eq!(fleet.authority().believed().unwrap().len(), 2);
    let three = fleet.issue("three");
    assert!(fleet.believes(&one, &three, "three"));
    assert!(fleet.believes(&three, &two, "two"));
}

#[test]
fn openssl_agrees() {
    if Command::new("openssl").arg("version").output().is_err() {
        println!("SKIPPED: openssl is not here");
        return;
    }
    let fleet = Fleet::init();
    fleet.issue("one");
    fleet.authority().rotate(3650).unwrap();
    let two = fleet.issue("two");
    let verify = |ca: &Path, name: &str| {
        let mut command = Command::new("openssl");
        command.args(["verify", "-purpose", "sslserver", "-verify_hostname", name]);
        command
            .arg("-CAfile")
            .arg(ca)
            .arg("-untrusted")
            .arg(two.join("node.pem"));
        let output = command.arg(two.join("node.pem")).output().unwrap();
        (
            output.status.success(),
            String::from_utf8_lossy(&output.stderr).into_owned(),
        )
    };
    // To the new authority, and by the signature of the old one to that.
    for ca in [two.join("ca.pem"), fleet.folder().join("one/ca.pem")] {
        let (good, told) = verify(&ca, "two.servers.hydrant");
        assert!(good, "{told}");
        assert!(!verify(&ca, "one.servers.hydrant").0, "of another server");
    }
}
