//! What is measured, and for how long.

use super::Result;
use super::works::{Part, WORKS};
use crate::bench::{ROUNDS, SECONDS};

const USAGE: &str =
    "bench router [--work W1,W3,latency,memory] [--rounds N] [--seconds N] [--print]";

pub(super) struct Options {
    pub(super) parts: Vec<Part>,
    pub(super) rounds: usize,
    /// Of each peer's turn in a round.
    pub(super) seconds: u32,
    /// The page stays as it is.
    pub(super) print_only: bool,
}

impl Options {
    pub(super) fn read(arguments: &[&str]) -> Result<Self> {
        let mut options = Self {
            parts: all(),
            rounds: ROUNDS,
            seconds: SECONDS,
            print_only: false,
        };
        let mut arguments = arguments.iter();
        while let Some(argument) = arguments.next() {
            if *argument == "--print" {
                options.print_only = true;
                continue;
            }
            let value = arguments.next().ok_or(USAGE)?;
            match *argument {
                "--work" => options.parts = value.split(',').map(part).collect::<Result<_>>()?,
                "--rounds" => options.rounds = number(value)?,
                "--seconds" => options.seconds = number(value)? as u32,
                _ => return Err(format!("`{argument}` is unknown: {USAGE}")),
            }
        }
        Ok(options)
    }
}

fn all() -> Vec<Part> {
    let works = WORKS.iter().map(Part::Work);
    works.chain([Part::Latency, Part::Memory]).collect()
}

fn part(id: &str) -> Result<Part> {
    let found = all().into_iter().find(|part| part.id() == id);
    found.ok_or_else(|| {
        let known: Vec<_> = all().iter().map(Part::id).collect();
        format!("there is no work `{id}`; there are {}", known.join(", "))
    })
}

fn number(text: &str) -> Result<usize> {
    let number = text
        .parse()
        .ok()
        .filter(|number| (1..=1000).contains(number));
    number.ok_or_else(|| format!("`{text}` is no number from 1 to 1000"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn works_rounds_and_seconds_are_chosen() {
        let options = Options::read(&["--work", "W3,memory", "--rounds", "2", "--seconds", "1"]);
        let options = options.unwrap();
        let ids: Vec<_> = options.parts.iter().map(Part::id).collect();
        assert_eq!(ids, ["W3", "memory"]);
        assert_eq!((options.rounds, options.seconds), (2, 1));
        assert!(!options.print_only && Options::read(&["--print"]).unwrap().print_only);
    }

    #[test]
    fn what_is_not_there_is_refused() {
        for wrong in [
            ["--work", "W99"],
            ["--rounds", "0"],
            ["--seconds", "x"],
            ["--wrok", "W1"],
        ] {
            assert!(Options::read(&wrong).is_err(), "{wrong:?}");
        }
        assert!(Options::read(&["--rounds"]).is_err());
    }
}
