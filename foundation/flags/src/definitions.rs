use std::collections::HashMap;

use crate::{Flag, Mistake, set};

/// The most flags of all sets.
const MAX_FLAGS: usize = 20_000;

/// All flags of all flag sets, compiled.
#[derive(Debug, Default)]
pub struct Definitions {
    flags: Vec<Flag>,
    by_key: HashMap<String, usize>,
    uses_time: bool,
}

impl Definitions {
    /// Compiles flag sets: their names and their texts, in flagd's JSON. A key stands in one set only.
    ///
    /// # Errors
    ///
    /// All that is wrong with them, in documents `flags/{name}`.
    pub fn compile<'a>(
        sets: impl IntoIterator<Item = (&'a str, &'a str)>,
    ) -> Result<Self, Vec<Mistake>> {
        let (mut flags, mut mistakes) = (Vec::new(), Vec::new());
        let (mut homes, mut uses_time) = (HashMap::new(), false);
        for (name, text) in sets {
            let compiled = set::compile(name, text);
            let twice = compiled.flags.iter().filter_map(|flag| {
                let first = homes.insert(flag.key.clone(), name)?;
                Some(stands_twice(flag, first))
            });
            let twice = twice.enumerate().map(|(place, mistake)| match place {
                0..set::MAX_TOLD => mistake.located(text),
                _ => mistake,
            });
            let found = compiled.findings.into_iter().map(|finding| finding.mistake);
            let document = format!("flags/{name}");
            mistakes.extend(found.chain(twice).map(|mistake| mistake.of(&document)));
            flags.extend(compiled.flags);
            uses_time |= compiled.uses_time;
            if flags.len() > MAX_FLAGS {
                mistakes.push(too_many().of(&document));
                break;
            }
        }
        if mistakes.is_empty() {
            return Ok(Self::of(flags, uses_time));
        }
        Err(mistakes)
    }

    /// Compiles one set as evaluators of flagd load it, who take more than its schema does: each flag for
    /// itself, without those that can't be evaluated. Comes with all mistakes.
    pub fn lenient(name: &str, text: &str) -> (Self, Vec<Mistake>) {
        let compiled = set::compile(name, text);
        let sound = compiled
            .flags
            .into_iter()
            .filter(|flag| !compiled.broken.contains(&flag.key));
        let found = compiled.findings.into_iter().map(|finding| finding.mistake);
        let definitions = Self::of(sound.collect(), compiled.uses_time);
        (definitions, found.collect())
    }

    fn of(mut flags: Vec<Flag>, uses_time: bool) -> Self {
        flags.sort_by(|one, other| one.key.cmp(&other.key));
        let by_key = flags.iter().enumerate();
        let by_key = by_key
            .map(|(index, flag)| (flag.key.clone(), index))
            .collect();
        Self {
            flags,
            by_key,
            uses_time,
        }
    }

    /// The flag with this key.
    pub fn get(&self, key: &str) -> Option<&Flag> {
        Some(&self.flags[*self.by_key.get(key)?])
    }

    /// Whether an evaluation may say something else at another time.
    pub fn uses_time(&self) -> bool {
        self.uses_time
    }

    /// All flags, sorted by key.
    pub fn iter(&self) -> impl Iterator<Item = &Flag> {
        self.flags.iter()
    }
}

fn stands_twice(flag: &Flag, first: &str) -> Mistake {
    let message = format!("the flag `{}` stands in the set `{first}`, too", flag.key);
    Mistake::at(set::pointer_of(&flag.key), message).mend("A key is one flag: rename one of them.")
}

fn too_many() -> Mistake {
    let message = format!("all flag sets together have at most {MAX_FLAGS} flags");
    Mistake::at("/flags", message).mend("Remove those that nobody asks for any more.")
}

#[cfg(test)]
mod tests {
    use serde_json::{Map, json};

    use super::*;
    use crate::{Context, Reason};

    const DEMO: &str = r#"{
  "flags": {
    "checkout": {
      "state": "ENABLED",
      "variants": { "new": { "steps": 1 }, "old": { "steps": 3 } },
      "defaultVariant": "old",
      "metadata": { "public": true },
      "targeting": { "if": [ { "==": [ { "var": "plan" }, "gold" ] }, "new" ] }
    },
    "banner": { "state": "ENABLED", "variants": { "on": true, "off": false }, "defaultVariant": "off" },
    "gone": { "state": "DISABLED", "variants": { "on": true }, "defaultVariant": "on" },
    "open": { "state": "ENABLED", "variants": { "one": 1 } }
  },
  "metadata": { "version": "7", "public": false }
}"#;

    fn evaluated<'a>(
        definitions: &'a Definitions,
        key: &str,
        plan: &str,
    ) -> (Option<&'a str>, Reason) {
        let attributes = Map::from_iter([("plan".to_owned(), json!(plan))]);
        let context = Context {
            targeting_key: Some("u"),
            attributes: &attributes,
            now_unix: 0,
        };
        let evaluation = definitions.get(key).unwrap().evaluate(&context).unwrap();
        (evaluation.variant, evaluation.reason)
    }

    #[test]
    fn flags_are_evaluated_with_their_reasons() {
        let definitions = Definitions::compile([("demo", DEMO)]).unwrap();
        let keys: Vec<_> = definitions.iter().map(Flag::key).collect();
        assert_eq!(keys, ["banner", "checkout", "gone", "open"]);
        for (key, plan, variant, reason) in [
            ("checkout", "gold", Some("new"), Reason::TargetingMatch),
            ("checkout", "tin", Some("old"), Reason::Default),
            ("banner", "", Some("off"), Reason::Static),
            ("gone", "", None, Reason::Disabled),
            ("open", "", None, Reason::Default),
        ] {
            assert_eq!(
                evaluated(&definitions, key, plan),
                (variant, reason),
                "{key}"
            );
        }
    }

    #[test]
    fn metadata_of_a_flag_stands_on_top_of_that_of_its_set() {
        let definitions = Definitions::compile([("demo", DEMO)]).unwrap();
        let (checkout, banner) = (
            definitions.get("checkout").unwrap(),
            definitions.get("banner").unwrap(),
        );
        assert!(checkout.is_public() && !banner.is_public());
        assert_eq!(checkout.metadata_json(), r#"{"public":true,"version":"7"}"#);
        assert_eq!(checkout.find("new").unwrap().value_json(), r#"{"steps":1}"#);
    }

    fn mistakes(text: &str) -> Vec<String> {
        let mistakes = Definitions::compile([("demo", text)]).unwrap_err();
        mistakes
            .iter()
            .map(|mistake| format!("{mistake} {}", mistake.mend))
            .collect()
    }

    #[test]
    fn all_mistakes_are_told_with_their_lines() {
        let text = DEMO
            .replace(r#""defaultVariant": "old""#, r#""defaultVariant": "odd""#)
            .replace(r#"{ "==": ["#, r#"{ "=": ["#)
            .replace("\"DISABLED\"", "\"disabled\"");
        assert_eq!(
            mistakes(&text),
            [
                "flags/demo:6:7 at /flags/checkout/defaultVariant: there is no variant `odd` The variants are `new`, `old`.",
                "flags/demo:8:32 at /flags/checkout/targeting/if/0/=: there is no operator `=` JSONLogic's operators are known, and flagd's `fractional`, `starts_with`, `ends_with` and `sem_ver`.",
                "flags/demo:11:15 at /flags/gone/state: the state of a flag is \"ENABLED\" or \"DISABLED\" Write \"state\": \"ENABLED\".",
            ]
        );
    }

    #[test]
    fn a_misspelled_member_is_told_and_one_that_is_not_known_is_not() {
        let text = DEMO
            .replace("\"targeting\"", "\"targetting\"")
            .replace("\"metadata\": { \"public\"", "\"owner\": { \"public\"");
        let told = [
            "flags/demo:8:7 at /flags/checkout/targetting: nobody knows `targetting` here Write `targeting`.",
        ];
        assert_eq!(mistakes(&text), told);
        assert_eq!(
            mistakes(r#"{"flags": {}, "evaluators": {}}"#)[0],
            "flags/demo:1:15 at /evaluators: nobody knows `evaluators` here Write `$evaluators`."
        );
    }

    #[test]
    fn a_text_that_is_no_json_is_told_how_to_mend_it() {
        for (text, line, mend) in [
            ("{\"flags\": {},\n}", 2, "comma before it"),
            ("{\"flags\": {}\n\"metadata\": {}}", 2, "a comma is missing"),
            ("{ // all\n}", 1, "no comments"),
            ("{'flags': {}}", 1, "double quotes"),
            ("{\"flags\": {}\n", 1, "not closed"),
            ("", 1, "not closed"),
        ] {
            let found = &Definitions::compile([("demo", text)]).unwrap_err()[0];
            assert!(
                found.line == line && found.mend.contains(mend),
                "{text}: {found:?}"
            );
        }
        let deep = "[".repeat(200);
        let found = &Definitions::compile([("demo", deep.as_str())]).unwrap_err()[0];
        assert!(found.mend.contains("127 levels"), "{found:?}");
    }

    #[test]
    fn what_every_flag_would_have_is_bounded_and_so_is_what_is_told() {
        let large = "x".repeat(4096);
        let text = json!({"flags": {}, "metadata": {"large": large}}).to_string();
        assert!(mistakes(&text)[0].contains("at most 4096 bytes"));
        let flags: Map<_, _> = (0..9000)
            .map(|n| {
                (
                    format!("f{n}"),
                    json!({"state": "off", "variants": {"on": "odd"}, "defaultVariant": "x"}),
                )
            })
            .collect();
        let text = json!({ "flags": flags }).to_string();
        let begun = std::time::Instant::now();
        let found = Definitions::compile([("demo", text.as_str())]).unwrap_err();
        println!("{} mistakes after {:?}", found.len(), begun.elapsed());
        let told = found.iter().filter(|mistake| mistake.line > 0);
        assert_eq!((found.len(), told.count()), (18_000, 100));
        let twice = format!("{{{}}}", "\"a\": 1,".repeat(50_000) + "\"a\": 1");
        assert_eq!(crate::read(&twice).unwrap_err().len(), 100);
        let sets: Vec<_> = (0..3)
            .map(|set| {
                let flag = json!({"state": "ENABLED", "variants": {"on": 1}});
                let flags: Map<_, _> = (0..9000)
                    .map(|n| (format!("f{set}-{n}"), flag.clone()))
                    .collect();
                json!({ "flags": flags }).to_string()
            })
            .collect();
        let all = sets.iter().map(|text| ("set", text.as_str()));
        let found = Definitions::compile(all).unwrap_err();
        assert!(
            found[0].message.contains("at most 20000 flags"),
            "{}",
            found[0]
        );
    }

    #[test]
    fn a_key_stands_in_one_set_only() {
        let other = r#"{"flags": {"gone": {"state": "ENABLED", "variants": {"on": true}}}}"#;
        let mistakes = Definitions::compile([("demo", DEMO), ("other", other)]).unwrap_err();
        assert_eq!(mistakes.len(), 1);
        assert_eq!(
            mistakes[0].to_string(),
            "flags/other:1:12 at /flags/gone: the flag `gone` stands in the set `demo`, too"
        );
    }

    #[test]
    fn an_evaluator_that_refers_to_itself_is_refused() {
        let text = r#"{"flags": {}, "$evaluators": {
            "a": {"and": [{"$ref": "b"}, true]},
            "b": {"!": {"$ref": "a"}}
        }}"#;
        let mistakes = mistakes(text);
        assert_eq!(mistakes.len(), 1, "{mistakes:?}");
        assert!(
            mistakes[0].contains("the evaluator `a` refers to itself"),
            "{mistakes:?}"
        );
    }

    /// A flag whose rule leads through so many evaluators, each with an operator.
    fn chain(length: usize) -> String {
        let mut evaluators = Map::from_iter([("e0".to_owned(), json!({"!": {"var": "x"}}))]);
        for index in 1..length {
            let rule = json!({"!": {"$ref": format!("e{}", index - 1)}});
            evaluators.insert(format!("e{index}"), rule);
        }
        let variants = json!({"true": 1, "false": 2});
        let targeting = json!({"$ref": format!("e{}", length - 1)});
        let flag = json!({"state": "ENABLED", "variants": variants, "targeting": targeting});
        json!({"flags": {"flag": flag}, "$evaluators": evaluators}).to_string()
    }

    #[test]
    fn long_chains_of_evaluators_are_refused() {
        for length in [60, 5000] {
            let told = mistakes(&chain(length));
            assert!(told[0].contains("nested deeper than"), "{told:?}");
        }
    }

    #[test]
    fn the_longest_chain_fits_the_stack_of_a_worker() {
        let worker = std::thread::Builder::new().stack_size(1 << 20);
        let evaluated = worker.spawn(|| {
            let text = chain(45);
            let definitions = Definitions::compile([("set", text.as_str())]).unwrap();
            evaluated(&definitions, "flag", "").1
        });
        assert_eq!(evaluated.unwrap().join().unwrap(), Reason::TargetingMatch);
    }
}
