//! Who is who, and who may do what: the node's key, the operator's token, and every rule of
//! authority of the local API.

use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use hydrant_contracts::{
    Code, Error, Identity, Instance, NODE_SERVICE, ServiceId, Tier, TokenKey, header,
};
use hydrant_ports::Key;

/// Methods below this package belong to the node alone.
const OWN_PACKAGE: &str = "hydrant.v1.";

/// A secret file that can't be used.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// It can't be read or written.
    #[error("cannot {what} the secret file {}", path.display())]
    File {
        /// What was tried.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// It does not have the form of a key.
    #[error(
        "the key file {} is damaged: it has {len} bytes instead of 32; restore it, or delete it and hand out new tokens", path.display()
    )]
    Damaged {
        /// The file.
        path: PathBuf,
        /// Its length in bytes.
        len: usize,
    },
}

/// Reads the node's key, or makes one at the first start: 32 random bytes that only the owner of
/// the process can read.
pub fn load_or_create_key(path: &Path) -> Result<TokenKey, IdentityError> {
    let secret = match fs::read(path) {
        Ok(secret) => {
            close_to_others(path)?;
            secret
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => create_key(path)?,
        Err(source) => return Err(file_error("read", path)(source)),
    };
    match <&[u8; 32]>::try_from(&secret[..]) {
        Ok(secret) => Ok(TokenKey::new(secret)),
        Err(_) => Err(IdentityError::Damaged {
            path: path.into(),
            len: secret.len(),
        }),
    }
}

/// Writes a token for the operator, which the command line finds by itself.
pub fn write_operator_token(path: &Path, key: &TokenKey) -> Result<(), IdentityError> {
    let token = key.issue(&Identity::Operator);
    write_private(path, token.as_bytes()).map_err(file_error("write", path))
}

fn create_key(path: &Path) -> Result<Vec<u8>, IdentityError> {
    let mut secret = vec![0; 32];
    File::open("/dev/urandom")
        .and_then(|mut random| random.read_exact(&mut secret))
        .and_then(|()| write_private(path, &secret))
        .map_err(file_error("make", path))?;
    Ok(secret)
}

/// Writes a file whole or not at all, readable by its owner only.
pub(crate) fn write_private(path: &Path, content: &[u8]) -> io::Result<()> {
    let unfinished = path.with_extension("unfinished");
    match fs::remove_file(&unfinished) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&unfinished)?;
    file.write_all(content)?;
    file.sync_all()?;
    fs::rename(&unfinished, path)?;
    match path.parent() {
        Some(folder) => File::open(folder)?.sync_all(),
        None => Ok(()),
    }
}

/// A key that others could read stays in use, since every token hangs on it; but they can't read
/// it from now on, and the operator is told.
fn close_to_others(path: &Path) -> Result<(), IdentityError> {
    let mode = fs::metadata(path)
        .map_err(file_error("read", path))?
        .permissions()
        .mode();
    if mode & 0o077 == 0 {
        return Ok(());
    }
    tracing::warn!(path = %path.display(), "other users could read the key file; now they cannot");
    fs::set_permissions(path, Permissions::from_mode(0o600)).map_err(file_error("protect", path))
}

fn file_error(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> IdentityError {
    let path = path.into();
    move |source| IdentityError::File { what, path, source }
}

/// The rules of authority, all of them.
pub(crate) struct Authority {
    key: TokenKey,
}

/// What a namespace is wanted for.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Access {
    Read,
    Write,
}

/// What can be held by one at a time.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum SeatKind {
    Election,
    Lock,
}

impl Authority {
    pub(crate) fn new(key: TokenKey) -> Self {
        Self { key }
    }

    /// Who calls, by the token among the headers. The local API knows no outside.
    pub(crate) fn identify(&self, headers: &http::HeaderMap) -> Result<Identity, Error> {
        let unauthenticated =
            |reason, message: String| Error::new(Code::Unauthenticated, reason, message);
        let token = headers.get(header::TOKEN).ok_or_else(|| {
            unauthenticated("no_token", format!("the header {} is missing", header::TOKEN))
                .mend("a service finds its token in HYDRANT_TOKEN, the command line in operator.token of the data folder")
        })?;
        let token = token.to_str().unwrap_or_default();
        self.key
            .verify(token)
            .map_err(|error| unauthenticated("invalid_token", error.to_string()))
    }

    /// Only a service's own token registers it, with methods that are not the node's.
    pub(crate) fn may_register(&self, who: &Identity, instance: &Instance) -> Result<(), Error> {
        if instance.service == node_service() {
            return Err(denied("service/node is the node itself".into()));
        }
        if *who != Identity::Service(instance.service.clone()) {
            let message = format!("{who} may not register an instance of {}", instance.service);
            return Err(denied(message).mend(mend_token(&instance.service)));
        }
        let own = |path: &str| path.starts_with(OWN_PACKAGE);
        match instance.methods.iter().find(|m| own(m.path.as_str())) {
            Some(method) => Err(denied(format!("{} is a method of the node", method.path))),
            None => Ok(()),
        }
    }

    /// The seat `name` of the caller's own namespace. The same text is its mark in the state.
    pub(crate) fn seat(&self, who: &Identity, kind: SeatKind, name: &str) -> Result<Key, Error> {
        match who {
            Identity::Service(service) => seat_key(kind, service, name),
            Identity::Operator => Err(denied(format!(
                "the operator has no namespace of its own for {}",
                kind.plural()
            ))
            .mend("use the token of a service: `hydrant token SERVICE`")),
        }
    }

    /// The election that is watched: a service names one of its own, the operator any, as
    /// `TIER/SERVICE/NAME`.
    pub(crate) fn observed(&self, who: &Identity, name: &str) -> Result<Key, Error> {
        if *who != Identity::Operator {
            return self.seat(who, SeatKind::Election, name);
        }
        let mut parts = name.splitn(3, '/');
        let (tier, service) = (
            parts.next().unwrap_or_default(),
            parts.next().unwrap_or_default(),
        );
        let service: ServiceId = format!("{tier}/{service}").parse()?;
        seat_key(
            SeatKind::Election,
            &service,
            parts.next().unwrap_or_default(),
        )
    }

    /// The namespace of the state that the caller means; empty means its own.
    pub(crate) fn namespace(
        &self,
        who: &Identity,
        named: &str,
        access: Access,
    ) -> Result<ServiceId, Error> {
        match who {
            Identity::Operator if named.is_empty() => Err(invalid(
                "no_namespace",
                "the operator has no namespace of its own".into(),
            )
            .mend("name one, as api/mobile")),
            Identity::Operator => Ok(named.parse()?),
            Identity::Service(own) if named.is_empty() => Ok(own.clone()),
            Identity::Service(own) => {
                let wanted: ServiceId = named.parse()?;
                let inner = own.name == wanted.name && own.tier.may_call(wanted.tier);
                match access {
                    _ if *own == wanted => Ok(wanted),
                    Access::Read if inner => Ok(wanted),
                    Access::Read => {
                        Err(denied(format!("{own} may not read the state of {wanted}")))
                    }
                    Access::Write => {
                        Err(denied(format!("{own} may not write the state of {wanted}"))
                            .mend("a service writes only its own state; call it"))
                    }
                }
            }
        }
    }

    /// What only the operator may do.
    pub(crate) fn operator(&self, who: &Identity, what: &str) -> Result<(), Error> {
        match who {
            Identity::Operator => Ok(()),
            Identity::Service(service) => Err(denied(format!(
                "{service} may not {what}: only the operator may"
            ))),
        }
    }

    /// Makes a token for a service other than the node.
    pub(crate) fn issue(&self, service: &ServiceId) -> Result<String, Error> {
        if *service == node_service() {
            return Err(denied("service/node is the node itself".into()));
        }
        Ok(self.key.issue(&Identity::Service(service.clone())))
    }
}

impl SeatKind {
    const fn plural(self) -> &'static str {
        match self {
            SeatKind::Election => "elections",
            SeatKind::Lock => "locks",
        }
    }
}

/// The service under which the node is reached.
pub(crate) fn node_service() -> ServiceId {
    let name = NODE_SERVICE.parse().expect("the node's name is valid");
    ServiceId::new(Tier::Service, name)
}

/// The key of a seat, and of its mark: `elections/{tier}/{service}/{name}`.
pub(crate) fn seat_key(kind: SeatKind, service: &ServiceId, name: &str) -> Result<Key, Error> {
    format!("{}/{service}/{name}", kind.plural())
        .parse()
        .map_err(|error: hydrant_ports::InvalidKey| invalid("invalid_name", error.to_string()))
}

pub(crate) fn invalid(reason: &'static str, message: String) -> Error {
    Error::new(Code::InvalidArgument, reason, message)
}

fn denied(message: String) -> Error {
    Error::new(Code::PermissionDenied, "not_authorised", message)
}

fn mend_token(service: &ServiceId) -> String {
    format!("use the token of that service: `hydrant token {service}`")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn authority() -> Authority {
        Authority::new(TokenKey::new(&[7; 32]))
    }

    fn service(name: &str) -> Identity {
        Identity::Service(name.parse().unwrap())
    }

    #[test]
    fn a_key_is_made_once_and_kept() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("key");
        let token = load_or_create_key(&path)
            .unwrap()
            .issue(&Identity::Operator);
        let again = load_or_create_key(&path).unwrap();
        assert_eq!(again.verify(&token), Ok(Identity::Operator));
        let mode = fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        assert_eq!(fs::read(&path).unwrap().len(), 32);
    }

    #[test]
    fn a_damaged_key_says_how_to_mend_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("key");
        fs::write(&path, b"short").unwrap();
        let error = load_or_create_key(&path).unwrap_err().to_string();
        assert!(
            error.contains("5 bytes instead of 32; restore it"),
            "{error}"
        );
        assert_eq!(fs::read(&path).unwrap(), b"short", "never written over");
    }

    #[test]
    fn a_key_that_others_can_read_is_closed() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("key");
        fs::write(&path, [1; 32]).unwrap();
        fs::set_permissions(&path, Permissions::from_mode(0o644)).unwrap();
        load_or_create_key(&path).unwrap();
        assert_eq!(
            fs::metadata(&path).unwrap().permissions().mode() & 0o777,
            0o600
        );
    }

    #[test]
    fn the_operators_token_is_private_and_works() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("operator.token");
        let key = TokenKey::new(&[7; 32]);
        write_operator_token(&path, &key).unwrap();
        write_operator_token(&path, &key).unwrap();
        assert_eq!(
            fs::metadata(&path).unwrap().permissions().mode() & 0o777,
            0o600
        );
        let token = fs::read_to_string(&path).unwrap();
        assert_eq!(key.verify(&token), Ok(Identity::Operator));
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn state_is_written_by_its_owner_and_read_from_outer_tiers_of_the_same_name() {
        let all = [
            "api/mobile",
            "orchestration/mobile",
            "service/mobile",
            "service/other",
        ];
        let may = |who: &str, access| {
            let allowed = |ns: &&str| authority().namespace(&service(who), ns, access).is_ok();
            all.into_iter().filter(allowed).collect::<Vec<_>>()
        };
        assert_eq!(may("api/mobile", Access::Read), all[..3]);
        assert_eq!(may("orchestration/mobile", Access::Read), all[1..3]);
        assert_eq!(may("service/mobile", Access::Read), all[2..3]);
        for who in &all[..3] {
            assert_eq!(may(who, Access::Write), [*who]);
        }
    }

    #[test]
    fn an_empty_namespace_is_ones_own_and_the_operator_names_any() {
        let own = authority().namespace(&service("api/a"), "", Access::Write);
        assert_eq!(own.unwrap().to_string(), "api/a");
        let operator = |ns| authority().namespace(&Identity::Operator, ns, Access::Write);
        assert_eq!(operator("api/a").unwrap().to_string(), "api/a");
        assert_eq!(operator("").unwrap_err().reason, "no_namespace");
    }

    #[test]
    fn seats_stay_in_their_namespace() {
        let seat = |name| authority().seat(&service("api/a"), SeatKind::Lock, name);
        assert_eq!(seat("x").unwrap().as_str(), "locks/api/a/x");
        for bad in ["", "/x", "../b/x", "a b", "a\nb", &"x".repeat(600)] {
            assert_eq!(seat(bad).unwrap_err().code, Code::InvalidArgument, "{bad}");
        }
        let operator = authority().seat(&Identity::Operator, SeatKind::Lock, "x");
        assert_eq!(operator.unwrap_err().code, Code::PermissionDenied);
        let observed = authority()
            .observed(&Identity::Operator, "api/a/x")
            .unwrap();
        assert_eq!(observed.as_str(), "elections/api/a/x");
        assert!(authority().observed(&Identity::Operator, "x").is_err());
    }

    #[test]
    fn nobody_is_given_the_nodes_own_name() {
        let error = authority().issue(&node_service()).unwrap_err();
        assert_eq!(error.code, Code::PermissionDenied);
    }
}
