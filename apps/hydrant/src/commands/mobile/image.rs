//! `hydrant mobile image`: images of content.

use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::{Args, Subcommand, ValueHint};
use hydrant_contracts::{Code, Error};
use hydrant_mobile::proto::{ContentClient, ImageSummary, ListImagesRequest, RemoveImageRequest};
use serde_json::{Value, json};
use tokio::io::AsyncReadExt as _;

use super::Mobile;
use super::change::ChangeArgs;
use crate::failure::{Result, system, wrong};
use crate::output::{Table, plain, printable, size};

/// The largest file that is sent, in bytes; the service takes no larger one.
const MAX_FILE: u64 = 20 * 1024 * 1024;

/// How long an image may take to be taken in.
const PATIENCE: Duration = Duration::from_secs(180);

/// How much of an image's name a person sees; as much is enough to name it.
const SHORT: usize = 12;

/// Images of content
#[derive(Debug, Args)]
#[command(after_help = "\
An image is named by the SHA-256 of its file; its first digits are enough here. Apps get it in a
few widths, without what cameras write into files.

Examples:
  hydrant mobile image add apples.jpg --alt 'A basket of apples' -m 'summer sale'
  hydrant mobile image list
  hydrant mobile image remove 4f1c7be2 -m 'not used any more'")]
pub(crate) struct ImageArgs {
    #[command(subcommand)]
    command: ImageCommand,
}

#[derive(Debug, Subcommand)]
enum ImageCommand {
    /// Add an image, and print how an entry refers to it
    Add(AddArgs),
    /// List images, and which entries refer to them
    List,
    /// Show an image's sizes and URLs
    Show {
        /// Its SHA-256, or the first digits
        #[arg(value_name = "SHA256")]
        name: String,
    },
    /// Remove an image that no entry refers to
    Remove {
        /// Its SHA-256, or the first digits
        #[arg(value_name = "SHA256")]
        name: String,
        #[command(flatten)]
        change: ChangeArgs,
    },
}

#[derive(Debug, Args)]
struct AddArgs {
    /// A JPEG, PNG, WebP or GIF file of at most 20 MB
    #[arg(value_name = "FILE", value_hint = ValueHint::FilePath)]
    file: PathBuf,
    /// What it shows, for who can't see it
    #[arg(long, value_name = "TEXT")]
    alt: String,
    #[command(flatten)]
    change: ChangeArgs,
}

pub(crate) async fn run(mobile: &Mobile<'_>, args: &ImageArgs) -> Result<()> {
    match &args.command {
        ImageCommand::Add(args) => add(mobile, args).await,
        ImageCommand::List => list(mobile).await,
        ImageCommand::Show { name } => show(mobile, name).await,
        ImageCommand::Remove { name, change } => remove(mobile, name, change).await,
    }
}

async fn add(mobile: &Mobile<'_>, args: &AddArgs) -> Result<()> {
    let reason = args.change.reason()?;
    refuse_dry_run(&args.change)?;
    let (author, file) = (args.change.author(), read(&args.file).await?);
    let query = [
        ("author", author.as_str()),
        ("reason", &reason),
        ("alt", &args.alt),
    ];
    let request = mobile.access.post("v1/images", &query)?;
    let answer = request.timeout(PATIENCE).body(file).send().await;
    let answer = answer.map_err(|error| broken(&error))?;
    let status = answer.status();
    let body = answer.bytes().await.map_err(|error| broken(&error))?;
    let body: Value = serde_json::from_slice(&body).unwrap_or_default();
    if !status.is_success() {
        return Err(refusal(status.as_u16(), &body).into());
    }
    show_added(mobile, &body, status.as_u16() == 201)
}

fn show_added(mobile: &Mobile<'_>, answer: &Value, is_new: bool) -> Result<()> {
    if mobile.output.json {
        return mobile.output.json(answer);
    }
    let image = &answer["image"];
    let widths = image["variants"].as_array().into_iter().flatten();
    let widths: Vec<String> = widths.map(|one| one["width"].to_string()).collect();
    let sha256 = printable(answer["sha256"].as_str().unwrap_or_default());
    let what = if is_new { "added" } else { "there already" };
    mobile.output.text(&format!(
        "{what}: {} × {}, in the widths {}; revision {}\nAn entry refers to it so:\n{{ \"$image\": \"{sha256}\" }}\n",
        image["width"],
        image["height"],
        widths.join(", "),
        answer["revision"],
    ))
}

async fn list(mobile: &Mobile<'_>) -> Result<()> {
    let images = images(mobile).await?;
    if mobile.output.json {
        let images: Vec<Value> = images.iter().map(document).collect();
        return mobile.output.json(&json!({ "images": images }));
    }
    let mut table = Table::new(&["IMAGE", "TYPE", "SIZE", "PIXELS", "USED BY", "SHOWS"]);
    for image in &images {
        let users = image.used_by.join(", ");
        table.row([
            plain(image.sha256.chars().take(SHORT).collect::<String>()),
            plain(&image.r#type),
            plain(size(image.bytes)),
            plain(format!("{} × {}", image.width, image.height)),
            plain(if users.is_empty() { "-" } else { &users }),
            plain(&image.alt),
        ]);
    }
    let empty = "no images yet; add one: `hydrant mobile image add FILE --alt TEXT -m 'why'`";
    mobile.output.table_or(&table, empty)
}

async fn show(mobile: &Mobile<'_>, name: &str) -> Result<()> {
    let images = images(mobile).await?;
    let image = named(&images, name)?;
    if mobile.output.json {
        return mobile.output.json(&document(image));
    }
    let users = match image.used_by.as_slice() {
        [] => "no entry".to_owned(),
        some => printable(&some.join(", ")),
    };
    let shows = match image.alt.as_str() {
        "" => "- (say it for who can't see it: add it again with --alt)".to_owned(),
        alt => printable(alt),
    };
    mobile.output.text(&format!(
        "image {}\ntype {}, {}, {} × {}\nshows {}\nused by {}\n\n",
        image.sha256,
        printable(&image.r#type),
        size(image.bytes),
        image.width,
        image.height,
        shows,
        users,
    ))?;
    let mut table = Table::new(&["WIDTH", "HEIGHT", "SIZE", "PATH"]);
    for variant in &image.variants {
        table.row([
            plain(variant.width),
            plain(variant.height),
            plain(size(variant.bytes)),
            plain(&variant.path),
        ]);
    }
    mobile.output.table(&table)
}

async fn remove(mobile: &Mobile<'_>, name: &str, change: &ChangeArgs) -> Result<()> {
    let reason = change.reason()?;
    refuse_dry_run(change)?;
    let images = images(mobile).await?;
    let image = named(&images, name)?;
    let request = RemoveImageRequest {
        author: change.author(),
        reason,
        sha256: image.sha256.clone(),
        ..Default::default()
    };
    let answer = client(mobile).remove_image(request).await?.into_owned();
    if mobile.output.json {
        return mobile.output.json(&json!({
            "removed": image.sha256,
            "revision": answer.revision,
        }));
    }
    let text = format!("removed {}; revision {}\n", image.sha256, answer.revision);
    mobile.output.text(&text)
}

fn client(mobile: &Mobile<'_>) -> ContentClient<super::Way> {
    mobile.client(ContentClient::new)
}

async fn images(mobile: &Mobile<'_>) -> Result<Vec<ImageSummary>> {
    let request = ListImagesRequest::default();
    let answer = client(mobile).list_images(request).await?;
    Ok(answer.into_owned().images)
}

/// The one image whose name begins so.
fn named<'a>(images: &'a [ImageSummary], name: &str) -> Result<&'a ImageSummary> {
    let is_it = |image: &&ImageSummary| !name.is_empty() && image.sha256.starts_with(name);
    let mut found = images.iter().filter(is_it);
    match (found.next(), found.next()) {
        (Some(image), None) => Ok(image),
        (Some(_), Some(_)) => {
            let message = format!("several images begin with `{}`", printable(name));
            Err(wrong("ambiguous", message, "give more digits"))
        }
        (None, _) => {
            let message = format!("there is no image `{}`", printable(name));
            Err(Error::new(Code::NotFound, "no_such_image", message)
                .mend("see which there are: `hydrant mobile image list`")
                .into())
        }
    }
}

fn document(image: &ImageSummary) -> Value {
    let variants = image.variants.iter().map(|one| {
        json!({ "width": one.width, "height": one.height, "bytes": one.bytes, "path": one.path })
    });
    json!({
        "sha256": image.sha256,
        "type": image.r#type,
        "bytes": image.bytes,
        "width": image.width,
        "height": image.height,
        "alt": image.alt,
        "variants": variants.collect::<Vec<_>>(),
        "used_by": image.used_by,
    })
}

async fn read(path: &Path) -> Result<Vec<u8>> {
    let failed = |error| {
        system(
            format!("cannot read {}", path.display()),
            &error,
            "name an image file",
        )
    };
    let file = tokio::fs::File::open(path).await.map_err(failed)?;
    let mut bytes = Vec::new();
    let read = file.take(MAX_FILE + 1).read_to_end(&mut bytes).await;
    match read.map_err(failed)? as u64 > MAX_FILE {
        false => Ok(bytes),
        true => {
            let message = format!("{} has more than {}", path.display(), size(MAX_FILE));
            Err(wrong("image_too_large", message, "make it smaller first"))
        }
    }
}

fn refuse_dry_run(change: &ChangeArgs) -> Result<()> {
    match change.dry_run {
        false => Ok(()),
        true => Err(wrong(
            "no_dry_run",
            "an image is added or removed at once, or not at all",
            "leave --dry-run out",
        )),
    }
}

fn broken(error: &reqwest::Error) -> Error {
    let cause = std::error::Error::source(error).map_or_else(String::new, |e| format!(": {e}"));
    let message = format!("the connection broke while the image was sent{cause}");
    Error::new(Code::Unavailable, "connection_broken", message).mend("try again")
}

/// The error of a problem document.
fn refusal(status: u16, answer: &Value) -> Error {
    let code = serde_json::from_value(answer["code"].clone()).unwrap_or(Code::Unknown);
    let reason = answer["reason"].as_str().unwrap_or("http_error").to_owned();
    let told = answer["detail"].as_str().map(str::to_owned);
    let message = told.unwrap_or_else(|| format!("the answer was HTTP {status}"));
    Error::new(code, reason, message).mend(answer["mend"].as_str().unwrap_or_default())
}
