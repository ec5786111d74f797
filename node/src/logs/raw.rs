use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use hydrant_contracts::{InstanceId, ServiceId};
use serde::{Deserialize, Serialize};

use super::line::{MAX_LINE, Stream};

/// How much is read at once.
const CHUNK: usize = 256 * 1024;
/// So much that was read is given back to the disk at once.
const RELEASE: u64 = 1024 * 1024;

/// The file that a process writes to, and how far it was read.
///
/// Positions count all bytes that were ever written, also those that the file has no more.
#[derive(Debug)]
pub(super) struct RawFile {
    pub(super) service: ServiceId,
    pub(super) instance: InstanceId,
    pub(super) stream: Stream,
    path: PathBuf,
    place: Place,
    /// What was given back to the disk, as a place in the file.
    released: u64,
}

/// How far a file was read; kept beside it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Place {
    /// The position up to which every line is in the store.
    read: u64,
    /// The position at which the file begins, as far as it was truncated.
    base: u64,
    /// The rest of a line that was cut is left out.
    skipping: bool,
}

/// What was read at once.
#[derive(Debug)]
pub(super) struct Batch {
    pub(super) lines: Vec<RawLine>,
    /// The position behind it.
    end: u64,
    skipping: bool,
}

/// A line with where it ends.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct RawLine {
    pub(super) text: Vec<u8>,
    pub(super) end: u64,
    /// It was longer.
    pub(super) cut: bool,
}

impl RawFile {
    pub(super) fn path(
        folder: &Path,
        service: &ServiceId,
        instance: &InstanceId,
        stream: Stream,
    ) -> PathBuf {
        // Names hold no '+'.
        let name = format!(
            "{}+{}+{instance}.{}",
            service.tier,
            service.name,
            stream.as_str()
        );
        folder.join(name)
    }

    /// The file at `path`, if it is one that [`RawFile::path`] named.
    pub(super) fn open(path: PathBuf) -> Option<Self> {
        let (name, stream) = path.file_name()?.to_str()?.rsplit_once('.')?;
        let stream = Stream::ALL.into_iter().find(|s| s.as_str() == stream)?;
        let mut parts = name.splitn(3, '+');
        let (tier, service) = (parts.next()?.parse().ok()?, parts.next()?.parse().ok()?);
        let instance = parts.next()?.parse().ok()?;
        Some(Self {
            service: ServiceId::new(tier, service),
            instance,
            stream,
            released: 0,
            place: load(&place_path(&path)),
            path,
        })
    }

    /// Goes on behind the last of its lines that is in the store, if the place does not tell so:
    /// the store is written first.
    pub(super) fn already_stored(&mut self, end: u64) {
        if end > self.place.read {
            self.place.read = end;
            self.place.skipping = false;
        }
    }

    /// The lines that came since, as far as they are whole, of at most 256 KB; `None` when there
    /// are none. `ended` takes what has no line break yet for a line too. The place is not moved
    /// before [`RawFile::stored`].
    pub(super) fn read(&mut self, ended: bool) -> io::Result<Option<Batch>> {
        let file = match File::open(&self.path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            file => file?,
        };
        let length = file.metadata()?.len();
        if length < self.offset() {
            // It was truncated, and the node died before it could note it.
            self.place.base = self.place.read;
        }
        let mut chunk = vec![0; CHUNK.min((length - self.offset()) as usize)];
        let read = file.read_at(&mut chunk, self.offset())?;
        chunk.truncate(read);
        let last = ended && self.offset() + read as u64 == length;
        let batch = Batch::split(self.place, &chunk, last);
        Ok((batch.end > self.place.read).then_some(batch))
    }

    /// Notes that a batch is in the store, and gives its room back.
    pub(super) fn stored(&mut self, batch: &Batch) -> io::Result<()> {
        self.place.read = batch.end;
        self.place.skipping = batch.skipping;
        save(&place_path(&self.path), &self.place)?;
        if self.offset() - self.released >= RELEASE {
            self.release()?;
        }
        Ok(())
    }

    /// Gives the room of what was read back to the disk, while the process goes on to append: by
    /// a hole in the file, which loses nothing. Where the file system has no holes the file is
    /// truncated when all was read; what is written in that very moment is lost.
    fn release(&mut self) -> io::Result<()> {
        let file = OpenOptions::new().write(true).open(&self.path)?;
        if punch(&file, self.offset()) {
            self.released = self.offset();
        } else if file.metadata()?.len() == self.offset() {
            file.set_len(0)?;
            self.place.base = self.place.read;
            self.released = 0;
            save(&place_path(&self.path), &self.place)?;
        }
        Ok(())
    }

    /// Removes the file of a process that has ended.
    pub(super) fn remove(&self) {
        // What remains is looked at again at the next start.
        let _ = fs::remove_file(&self.path);
        let _ = fs::remove_file(place_path(&self.path));
    }

    fn offset(&self) -> u64 {
        self.place.read - self.place.base
    }
}

impl Batch {
    fn split(place: Place, mut chunk: &[u8], last: bool) -> Self {
        let mut batch = Batch {
            lines: Vec::new(),
            end: place.read,
            skipping: place.skipping,
        };
        while let Some(used) = line_length(chunk, last || batch.skipping) {
            let (line, rest) = chunk.split_at(used);
            chunk = rest;
            batch.take(line);
        }
        batch
    }

    fn take(&mut self, line: &[u8]) {
        self.end += line.len() as u64;
        let text = line.strip_suffix(b"\n");
        let whole = text.is_some();
        if !std::mem::replace(&mut self.skipping, !whole) {
            let text = text.unwrap_or(line);
            self.lines.push(RawLine::new(text, self.end));
        }
    }
}

/// How long the line is that the chunk begins with, its break included; `None` when more of it
/// may come. One that is too long is one already.
fn line_length(chunk: &[u8], unfinished: bool) -> Option<usize> {
    match chunk.iter().position(|byte| *byte == b'\n') {
        Some(at) => Some(at + 1),
        None => {
            (!chunk.is_empty() && (unfinished || chunk.len() > MAX_LINE)).then_some(chunk.len())
        }
    }
}

impl RawLine {
    fn new(text: &[u8], end: u64) -> Self {
        let text = text.strip_suffix(b"\r").unwrap_or(text);
        Self {
            text: text[..text.len().min(MAX_LINE)].to_vec(),
            end,
            cut: text.len() > MAX_LINE,
        }
    }
}

#[cfg(target_os = "linux")]
fn punch(file: &File, to: u64) -> bool {
    use rustix::fs::{FallocateFlags, fallocate};
    let hole = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
    fallocate(file, hole, 0, to).is_ok()
}

#[cfg(not(target_os = "linux"))]
fn punch(_file: &File, _to: u64) -> bool {
    false
}

fn place_path(raw: &Path) -> PathBuf {
    let mut path = raw.as_os_str().to_owned();
    path.push(".read");
    path.into()
}

fn load(path: &Path) -> Place {
    let place: Option<Place> = fs::read(path)
        .ok()
        .and_then(|bytes| serde_json::from_slice(&bytes).ok());
    place
        .filter(|place| place.base <= place.read)
        .unwrap_or_default()
}

fn save(path: &Path, place: &Place) -> io::Result<()> {
    let partial = path.with_extension("partial");
    fs::write(&partial, serde_json::to_vec(place)?)?;
    fs::rename(&partial, path)
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::os::unix::fs::MetadataExt;

    use super::*;

    struct Raw {
        folder: tempfile::TempDir,
        writer: File,
    }

    impl Raw {
        fn new() -> Self {
            let folder = tempfile::tempdir().unwrap();
            let writer = OpenOptions::new()
                .create(true)
                .append(true)
                .open(Self::at(folder.path()))
                .unwrap();
            Self { folder, writer }
        }

        fn at(folder: &Path) -> PathBuf {
            let (service, instance) = ("api/a".parse().unwrap(), "a-1".parse().unwrap());
            RawFile::path(folder, &service, &instance, Stream::Stdout)
        }

        fn open(&self) -> RawFile {
            RawFile::open(Self::at(self.folder.path())).unwrap()
        }
    }

    fn texts(batch: &Option<Batch>) -> Vec<String> {
        let text = |line: &RawLine| String::from_utf8(line.text.clone()).unwrap();
        batch
            .iter()
            .flat_map(|batch| &batch.lines)
            .map(text)
            .collect()
    }

    #[test]
    fn whole_lines_are_read_once() {
        let mut raw = Raw::new();
        let mut file = raw.open();
        raw.writer.write_all(b"one\r\ntwo\nthr").unwrap();
        let batch = file.read(false).unwrap();
        assert_eq!(texts(&batch), ["one", "two"]);
        file.stored(&batch.unwrap()).unwrap();

        let mut again = raw.open();
        assert!(again.read(false).unwrap().is_none());
        raw.writer.write_all(b"ee\nfour").unwrap();
        assert_eq!(texts(&again.read(false).unwrap()), ["three"]);
        assert_eq!(texts(&again.read(true).unwrap()), ["three", "four"]);
    }

    #[test]
    fn the_store_knows_better_than_the_place() {
        let mut raw = Raw::new();
        raw.writer.write_all(b"one\ntwo\n").unwrap();
        let mut file = raw.open();
        file.already_stored(4);
        assert_eq!(texts(&file.read(false).unwrap()), ["two"]);
    }

    #[test]
    fn a_long_line_is_cut_and_its_rest_left_out() {
        let mut raw = Raw::new();
        let mut file = raw.open();
        raw.writer.write_all(&[b'x'; MAX_LINE + 1]).unwrap();
        let batch = file.read(false).unwrap().unwrap();
        assert_eq!(batch.lines.len(), 1);
        assert_eq!(
            (batch.lines[0].text.len(), batch.lines[0].cut),
            (MAX_LINE, true)
        );
        file.stored(&batch).unwrap();
        raw.writer.write_all(&[b'y'; 100_000]).unwrap();
        let batch = file.read(false).unwrap().unwrap();
        assert!(batch.lines.is_empty());
        file.stored(&batch).unwrap();
        raw.writer.write_all(b"yy\nnext\n").unwrap();
        assert_eq!(texts(&raw.open().read(false).unwrap()), ["next"]);
    }

    #[test]
    fn what_was_read_gives_its_room_back() {
        let mut raw = Raw::new();
        let mut file = raw.open();
        let line = [&[b'x'; 1023][..], b"\n"].concat();
        for _ in 0..3000 {
            raw.writer.write_all(&line).unwrap();
        }
        let mut count = 0;
        while let Some(batch) = file.read(false).unwrap() {
            count += batch.lines.len();
            file.stored(&batch).unwrap();
        }
        raw.writer.write_all(b"after\n").unwrap();
        assert_eq!(count, 3000);
        assert_eq!(texts(&file.read(false).unwrap()), ["after"]);
        let metadata = raw.writer.metadata().unwrap();
        assert!(metadata.blocks() * 512 < 2 << 20, "{}", metadata.blocks());
    }

    #[test]
    fn a_truncated_file_is_read_from_its_beginning() {
        let mut raw = Raw::new();
        let mut file = raw.open();
        raw.writer.write_all(b"one\ntwo\n").unwrap();
        let batch = file.read(false).unwrap().unwrap();
        file.stored(&batch).unwrap();
        raw.writer.set_len(0).unwrap();
        raw.writer.write_all(b"three\n").unwrap();
        assert_eq!(texts(&file.read(false).unwrap()), ["three"]);
    }

    proptest::proptest! {
        /// However it is written and read, every line comes once, whole or cut.
        #[test]
        fn no_line_is_lost_or_doubled(
            lengths in proptest::collection::vec(0usize..40_000, 1..12),
            pieces in proptest::collection::vec(1usize..60_000, 1..40),
        ) {
            let text: Vec<u8> = lengths
                .iter()
                .flat_map(|length| [vec![b'x'; *length], b"\n".to_vec()].concat())
                .collect();
            let mut raw = Raw::new();
            let mut seen = Vec::new();
            let mut rest = &text[..];
            for piece in pieces.iter().cycle() {
                let (now, later) = rest.split_at((*piece).min(rest.len()));
                raw.writer.write_all(now).unwrap();
                rest = later;
                let mut file = raw.open();
                while let Some(batch) = file.read(false).unwrap() {
                    seen.extend(batch.lines.iter().map(|line| line.text.len()));
                    file.stored(&batch).unwrap();
                }
                if rest.is_empty() {
                    break;
                }
            }
            let expected: Vec<_> = lengths.iter().map(|length| (*length).min(MAX_LINE)).collect();
            proptest::prop_assert_eq!(seen, expected);
        }
    }
}
