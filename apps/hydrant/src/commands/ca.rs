use std::path::{Path, PathBuf};

use hydrant_contracts::ServerName;
use hydrant_runtime::Clock;
use serde_json::{Value, json};

use crate::cli::CaCommand;
use crate::failure::Result;
use crate::fleet::authority::{Authority, Wanted};
use crate::fleet::certificate::Certificate;
use crate::fleet::credentials::day;
use crate::output::{self, Output, Style, Table, plain};

/// How many days before its end a certificate is shown as one to replace.
const SOON_DAYS: i64 = 30;

/// Makes, replaces and shows what proves nodes of a fleet to each other.
pub(crate) fn run(command: CaCommand, output: &Output) -> Result<()> {
    match command {
        CaCommand::Init {
            dir,
            days,
            token_key,
        } => {
            let authority = Authority::init(&dir, days, token_key.as_deref(), Clock::system())?;
            init(&dir, &authority.signing()?, output)
        }
        CaCommand::Issue {
            server,
            dir,
            out,
            addresses,
            days,
            overwrite,
        } => {
            let server: ServerName = server.parse()?;
            let folder = out.unwrap_or_else(|| dir.join(server.as_str()));
            let wanted = Wanted {
                server: &server,
                folder: &folder,
                addresses: &addresses,
                days,
                overwrite,
            };
            let certificate = open(&dir)?.issue(&wanted)?;
            issued(&server, folder, &certificate, output)
        }
        CaCommand::Rotate { dir, days } => {
            let authority = open(&dir)?.rotate(days)?;
            rotated(&dir, &authority.signing()?, output)
        }
        CaCommand::Retire { dir } => retired(&dir, &open(&dir)?.retire()?, output),
        CaCommand::Show { dir } => show(&open(&dir)?, output),
    }
}

fn open(dir: &Path) -> Result<Authority> {
    Authority::open(dir, Clock::system())
}

fn init(dir: &Path, certificate: &Certificate, output: &Output) -> Result<()> {
    if output.json {
        return output.json(&json!({"folder": dir, "authority": document(certificate)}));
    }
    let (dir, end) = (dir.display(), day(certificate.not_after));
    output.text(&format!(
        "An authority is in {dir}; it ends on {end}.\n\
         Whoever has {dir}/ca.key can be any server of the fleet: keep the folder off the servers, and a copy of it.\n\
         Next: `hydrant ca issue SERVER` for each server.\n"
    ))
}

fn issued(
    server: &ServerName,
    folder: PathBuf,
    certificate: &Certificate,
    output: &Output,
) -> Result<()> {
    if output.json {
        let certificate = document(certificate);
        return output
            .json(&json!({"server": server, "folder": folder, "certificate": certificate}));
    }
    output.text(&format!(
        "The credentials of {server} are in {folder}; they end on {end}.\n\
         Put the folder on that server, and name it as `credentials` in [fleet].\n",
        folder = folder.display(),
        end = day(certificate.not_after),
    ))
}

fn rotated(dir: &Path, certificate: &Certificate, output: &Output) -> Result<()> {
    if output.json {
        return output.json(&json!({"folder": dir, "authority": document(certificate)}));
    }
    output.text(&format!(
        "A new authority signs in {dir}; it ends on {end}. The old one is believed until it is retired.\n\
         Next, for one server after the other: `hydrant ca issue SERVER --overwrite`, and put the folder there.\n\
         When all have theirs: `hydrant ca retire`.\n",
        dir = dir.display(),
        end = day(certificate.not_after),
    ))
}

fn retired(dir: &Path, retired: &[Certificate], output: &Output) -> Result<()> {
    if output.json {
        let retired: Vec<_> = retired.iter().map(document).collect();
        return output.json(&json!({"folder": dir, "retired": retired}));
    }
    output.text(&format!(
        "The old authority is not in {dir}/ca.pem any more.\n\
         Put that file into the credentials folder of each server: until then it believes the old one.\n",
        dir = dir.display(),
    ))
}

fn show(authority: &Authority, output: &Output) -> Result<()> {
    let (believed, signing, issued) = (
        authority.believed()?,
        authority.signing()?,
        authority.issued()?,
    );
    if output.json {
        let authority = |one: &Certificate| {
            let mut document = document(one);
            document["signs"] = (*one == signing).into();
            document
        };
        return output.json(&json!({
            "authorities": believed.iter().map(authority).collect::<Vec<_>>(),
            "servers": issued.iter().map(|(folder, one)| {
                let mut document = document(one);
                document["folder"] = folder.as_str().into();
                document
            }).collect::<Vec<_>>(),
        }));
    }
    let mut table = Table::new(&["WHAT", "NAME", "ENDS", "NOTE"]);
    for one in &believed {
        let note = if *one == signing {
            "signs"
        } else {
            "believed until it is retired"
        };
        table.row([
            plain("authority"),
            plain(&one.subject),
            end(one),
            plain(note),
        ]);
    }
    for (folder, one) in &issued {
        let note = if one.issuer == signing.subject {
            ""
        } else {
            "from an older authority"
        };
        table.row([plain("server"), plain(folder), end(one), plain(note)]);
    }
    output.table(&table)
}

fn end(certificate: &Certificate) -> (String, Style) {
    let left = certificate.not_after - Clock::system().unix_ms() / 1000;
    let style = if left < SOON_DAYS * 24 * 3600 {
        Style::Bad
    } else {
        Style::Plain
    };
    (day(certificate.not_after), style)
}

fn document(certificate: &Certificate) -> Value {
    let time = |seconds: i64| output::time(seconds.saturating_mul(1000));
    json!({
        "subject": certificate.subject,
        "issuer": certificate.issuer,
        "names": certificate.names,
        "not_before": time(certificate.not_before),
        "not_after": time(certificate.not_after),
    })
}
