//! `cargo xtask engines up`: the servers that tests use, for a person to play with.

use std::io::{self, Write};
use std::time::Duration;

use hydrant_harness::{MariaDb, Missing, Redis, ZooKeeper, mariadb, pause, redis, zookeeper};

use crate::tools;

/// What is to be started.
#[derive(Debug, Default, PartialEq, Eq)]
struct Wanted {
    zookeeper: bool,
    /// How many servers of ZooKeeper.
    ensemble: usize,
    redis: bool,
    mariadb: bool,
    sentinel: bool,
    cluster: bool,
    tls: bool,
}

impl Wanted {
    fn read(arguments: &[&str]) -> Result<Self, String> {
        let mut wanted = Self {
            ensemble: 1,
            ..Self::default()
        };
        let mut arguments = arguments.iter();
        while let Some(argument) = arguments.next() {
            match *argument {
                "zookeeper" => wanted.zookeeper = true,
                "redis" => wanted.redis = true,
                "mariadb" => wanted.mariadb = true,
                "--sentinel" => wanted.sentinel = true,
                "--cluster" => wanted.cluster = true,
                "--tls" => wanted.tls = true,
                "--ensemble" => {
                    let number = arguments.next().and_then(|number| number.parse().ok());
                    wanted.ensemble = number
                        .filter(|number| [1, 3].contains(number))
                        .ok_or("--ensemble is 1 or 3")?;
                }
                other => return Err(format!("`{other}` is no engine and no option")),
            }
        }
        if !(wanted.zookeeper || wanted.redis || wanted.mariadb) {
            return Err("name `zookeeper`, `redis`, `mariadb` or several of them".into());
        }
        if wanted.sentinel && wanted.cluster {
            return Err("--sentinel and --cluster are two kinds of Redis; choose one".into());
        }
        Ok(wanted)
    }

    fn zookeeper(&self) -> Result<Option<ZooKeeper>, Missing> {
        if !self.zookeeper {
            return Ok(None);
        }
        println!("xtask: starting ZooKeeper, {} of it", self.ensemble);
        let options = zookeeper::Options {
            servers: self.ensemble,
            tls: self.tls,
            ..Default::default()
        };
        ZooKeeper::start(options).map(Some)
    }

    fn redis(&self) -> Result<Option<Redis>, Missing> {
        if !self.redis {
            return Ok(None);
        }
        println!("xtask: starting Redis");
        let options = redis::Options {
            tls: self.tls,
            ..Default::default()
        };
        let redis = if self.sentinel {
            Redis::with_sentinel(options)
        } else if self.cluster {
            Redis::cluster(options)
        } else {
            Redis::single(options)
        };
        redis.map(Some)
    }

    fn mariadb(&self) -> Result<Option<MariaDb>, Missing> {
        if !self.mariadb {
            return Ok(None);
        }
        println!("xtask: starting MariaDB");
        let options = mariadb::Options {
            tls: self.tls,
            ..Default::default()
        };
        MariaDb::start(options).map(Some)
    }
}

/// Starts the engines, tells how a node is told of them, and runs until it is interrupted.
pub fn up(arguments: &[&str]) -> io::Result<bool> {
    let wanted = Wanted::read(arguments).map_err(io::Error::other)?;
    tools::install_missing();
    let zookeeper = wanted.zookeeper().map_err(io::Error::other)?;
    let redis = wanted.redis().map_err(io::Error::other)?;
    let mariadb = wanted.mariadb().map_err(io::Error::other)?;
    println!("\nFor the configuration file of a node:\n");
    for table in zookeeper.iter().map(ZooKeeper::table) {
        println!("{table}");
    }
    for table in redis.iter().map(Redis::table) {
        println!("{table}");
    }
    for table in mariadb.iter().map(MariaDb::table) {
        println!("{table}");
    }
    for folder in zookeeper.iter().map(ZooKeeper::folder) {
        println!("ZooKeeper's data and logs: {}", folder.display());
    }
    for folder in redis.iter().map(Redis::folder) {
        println!("Redis's data and logs: {}", folder.display());
    }
    for folder in mariadb.iter().map(MariaDb::folder) {
        println!("MariaDB's data and log: {}", folder.display());
    }
    println!("Ctrl-C ends them, and removes their data.");
    io::stdout().flush()?;
    // An interrupt ends this process, and with it, whatever happens, all that the harness started.
    loop {
        zookeeper.iter().for_each(ZooKeeper::check);
        redis.iter().for_each(Redis::check);
        mariadb.iter().for_each(MariaDb::check);
        pause(Duration::from_secs(1));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_wanted_is_read() {
        let wanted = Wanted::read(&[
            "redis",
            "--sentinel",
            "mariadb",
            "zookeeper",
            "--ensemble",
            "3",
        ]);
        let expected = Wanted {
            zookeeper: true,
            ensemble: 3,
            redis: true,
            mariadb: true,
            sentinel: true,
            ..Default::default()
        };
        assert_eq!(wanted, Ok(expected));
    }

    #[test]
    fn what_can_not_be_is_refused() {
        let all: [&[&str]; 5] = [
            &[],
            &["mysql"],
            &["zookeeper", "--ensemble"],
            &["zookeeper", "--ensemble", "2"],
            &["redis", "--sentinel", "--cluster"],
        ];
        for arguments in all {
            assert!(Wanted::read(arguments).is_err(), "{arguments:?}");
        }
    }
}
