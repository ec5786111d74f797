use std::collections::{BTreeMap, HashMap, VecDeque};
use std::fs::{self, File, OpenOptions};
use std::io::{self, BufRead, BufReader, Write};
use std::path::{Path, PathBuf};

use hydrant_contracts::{InstanceId, Pattern, ServiceId};
use serde::{Deserialize, Serialize};

use super::line::{LogLine, Stream};

/// How much is kept of each service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogsConfig {
    /// The size at which a new file is begun, in bytes.
    pub file_size: u64,
    /// How many files there are; the oldest goes first.
    pub files: usize,
}

impl Default for LogsConfig {
    fn default() -> Self {
        Self {
            file_size: 4 << 20,
            files: 4,
        }
    }
}

/// The bounded files of JSON lines, some for each service, so that a noisy one displaces no
/// quiet one's: `{tier}+{name}.0.jsonl` is the newest.
#[derive(Debug)]
pub(super) struct Store {
    folder: PathBuf,
    config: LogsConfig,
    files: BTreeMap<ServiceId, Newest>,
}

#[derive(Debug)]
struct Newest {
    file: File,
    size: u64,
}

/// A line as it is kept: with the place in the raw file at which it ends, by which a line is not
/// taken twice when the node dies before it has noted how far it read.
#[derive(Serialize)]
struct Kept<'a> {
    #[serde(flatten)]
    line: &'a LogLine,
    end: u64,
}

/// The end of the last line of each raw file.
pub(super) type Ends = HashMap<(InstanceId, Stream), u64>;

impl Store {
    pub(super) fn open(folder: PathBuf, config: LogsConfig) -> io::Result<Self> {
        fs::create_dir_all(&folder)?;
        Ok(Self {
            folder,
            config,
            files: BTreeMap::new(),
        })
    }

    /// Appends lines of one service, each with its end, in one write.
    pub(super) fn append(
        &mut self,
        service: &ServiceId,
        lines: &[(LogLine, u64)],
    ) -> io::Result<()> {
        let mut text = Vec::new();
        for (line, end) in lines {
            serde_json::to_writer(&mut text, &Kept { line, end: *end })?;
            text.push(b'\n');
        }
        let newest = self.newest(service)?;
        if let Err(error) = newest.file.write_all(&text) {
            // As if it had not been tried: the caller will come with the same lines again.
            let _ = newest.file.set_len(newest.size);
            return Err(error);
        }
        newest.size += text.len() as u64;
        if newest.size >= self.config.file_size {
            self.rotate(service)?;
        }
        Ok(())
    }

    fn newest(&mut self, service: &ServiceId) -> io::Result<&mut Newest> {
        if !self.files.contains_key(service) {
            let newest = Newest::open(&self.path(service, 0))?;
            self.files.insert(service.clone(), newest);
        }
        self.files
            .get_mut(service)
            .ok_or_else(|| io::Error::other("no such file"))
    }

    fn rotate(&mut self, service: &ServiceId) -> io::Result<()> {
        self.files.remove(service);
        for age in (0..self.config.files.saturating_sub(1)).rev() {
            match fs::rename(self.path(service, age), self.path(service, age + 1)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        Ok(())
    }

    /// The last `count` lines of what the pattern means, the oldest first.
    pub(super) fn tail(&self, pattern: &Pattern, count: usize) -> io::Result<Vec<LogLine>> {
        let mut lines = Vec::new();
        for service in self.services()? {
            lines.extend(self.tail_of(&service, pattern, count));
        }
        // Stable: lines of one moment stay in the order in which they were written.
        lines.sort_by_key(|line| line.time);
        lines.drain(..lines.len().saturating_sub(count));
        Ok(lines)
    }

    fn tail_of(&self, service: &ServiceId, pattern: &Pattern, count: usize) -> Vec<LogLine> {
        let mut lines = VecDeque::new();
        for age in 0..self.config.files {
            let mut of_file = VecDeque::new();
            for line in lines_of::<LogLine>(&self.path(service, age)) {
                if !pattern.matches(service, line.instance.as_str()) {
                    continue;
                }
                of_file.push_back(line);
                if of_file.len() + lines.len() > count {
                    of_file.pop_front();
                }
            }
            of_file.append(&mut lines);
            lines = of_file;
            if lines.len() >= count {
                break;
            }
        }
        lines.into()
    }

    /// The ends that the two newest files of each service tell: what was appended last is there.
    pub(super) fn ends(&self) -> io::Result<Ends> {
        #[derive(Deserialize)]
        struct End {
            instance: InstanceId,
            stream: Stream,
            end: u64,
        }
        let mut ends = Ends::new();
        for service in self.services()? {
            for age in [1, 0] {
                for line in lines_of::<End>(&self.path(&service, age)) {
                    ends.insert((line.instance, line.stream), line.end);
                }
            }
        }
        Ok(ends)
    }

    /// The services that have a file.
    fn services(&self) -> io::Result<Vec<ServiceId>> {
        let mut services: Vec<_> = fs::read_dir(&self.folder)?
            .filter_map(|entry| service_of(entry.ok()?.file_name().to_str()?))
            .collect();
        services.sort();
        services.dedup();
        Ok(services)
    }

    fn path(&self, service: &ServiceId, age: usize) -> PathBuf {
        let name = format!("{}+{}.{age}.jsonl", service.tier, service.name);
        self.folder.join(name)
    }
}

impl Newest {
    fn open(path: &Path) -> io::Result<Self> {
        let mut file = OpenOptions::new().create(true).append(true).open(path)?;
        let mut size = file.metadata()?.len();
        if !ends_a_line(path, size)? {
            // The node died in the middle of a write: what follows is a line of its own.
            file.write_all(b"\n")?;
            size += 1;
        }
        Ok(Self { file, size })
    }
}

fn ends_a_line(path: &Path, size: u64) -> io::Result<bool> {
    use std::os::unix::fs::FileExt;
    let mut last = [b'\n'];
    if size > 0 {
        File::open(path)?.read_exact_at(&mut last, size - 1)?;
    }
    Ok(last == [b'\n'])
}

fn service_of(file: &str) -> Option<ServiceId> {
    let name = file.strip_suffix(".jsonl")?;
    let (tier, name) = name.rsplit_once('.')?.0.split_once('+')?;
    Some(ServiceId::new(tier.parse().ok()?, name.parse().ok()?))
}

/// The lines that can be read; a half one, of a node that died, can't.
fn lines_of<T: serde::de::DeserializeOwned>(path: &Path) -> impl Iterator<Item = T> + use<T> {
    File::open(path).ok().into_iter().flat_map(|file| {
        BufReader::new(file)
            .split(b'\n')
            .map_while(Result::ok)
            .filter_map(|line| serde_json::from_slice(&line).ok())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(service: &str, instance: &str, message: &str, time: i64) -> LogLine {
        LogLine::read(
            &service.parse().unwrap(),
            &instance.parse().unwrap(),
            Stream::Stdout,
            message.as_bytes(),
            time,
        )
    }

    fn messages(lines: &[LogLine]) -> Vec<&str> {
        lines.iter().map(|line| line.message.as_str()).collect()
    }

    #[test]
    fn files_are_bounded_and_the_newest_lines_stay() {
        let folder = tempfile::tempdir().unwrap();
        let config = LogsConfig {
            file_size: 2000,
            files: 3,
        };
        let mut store = Store::open(folder.path().into(), config).unwrap();
        for number in 0..200 {
            let line = line("api/a", "a-1", &number.to_string(), number);
            let service = line.service.clone();
            store.append(&service, &[(line, number as u64)]).unwrap();
        }
        let all = store.tail(&Pattern::default(), 1000).unwrap();
        assert!((20..80).contains(&all.len()), "{}", all.len());
        assert_eq!(all.last().unwrap().message, "199");
        assert_eq!(
            messages(&store.tail(&Pattern::default(), 2).unwrap()),
            ["198", "199"]
        );
        assert!(fs::read_dir(folder.path()).unwrap().count() <= 3);
        assert_eq!(store.ends().unwrap().into_values().max(), Some(199));
    }

    #[test]
    fn services_are_merged_by_time_and_chosen_by_pattern() {
        let folder = tempfile::tempdir().unwrap();
        let mut store = Store::open(folder.path().into(), LogsConfig::default()).unwrap();
        for (service, instance, message, time) in [
            ("api/a", "a-1", "1", 1),
            ("service/b", "b-1", "2", 2),
            ("api/a", "a-2", "3", 3),
        ] {
            let line = line(service, instance, message, time);
            let service = line.service.clone();
            store.append(&service, &[(line, 1)]).unwrap();
        }
        let tail = |pattern: &str| store.tail(&pattern.parse().unwrap(), 10).unwrap();
        assert_eq!(messages(&tail("")), ["1", "2", "3"]);
        assert_eq!(messages(&tail("api/*")), ["1", "3"]);
        assert_eq!(messages(&tail("a-2")), ["3"]);
    }

    #[test]
    fn a_half_written_line_harms_no_other() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("api+a.0.jsonl"), "{\"time\":1,\"ser").unwrap();
        let mut store = Store::open(folder.path().into(), LogsConfig::default()).unwrap();
        let line = line("api/a", "a-1", "whole", 1);
        let service = line.service.clone();
        store.append(&service, &[(line, 1)]).unwrap();
        assert_eq!(
            messages(&store.tail(&Pattern::default(), 9).unwrap()),
            ["whole"]
        );
    }
}
