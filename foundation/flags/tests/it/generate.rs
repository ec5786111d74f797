//! Definitions and contexts by chance: every operator, values at the edges, and mostly rules that mean
//! something, for else all of them would only fail.

use fastrand::Rng;
use serde_json::{Map, Value, json};

/// A flag of a set, and who asks for it.
#[derive(Clone, Debug)]
pub struct Case {
    pub set: Value,
    pub key: String,
    pub context: Map<String, Value>,
}

/// What is generated.
#[derive(Clone, Copy)]
pub struct Kind {
    /// The form of `fractional`, `v2` or `v3`.
    pub form: &'static str,
    /// Whether `fractional` is among the operators.
    pub shares: bool,
    /// Of a hundred arguments, how many are of any type.
    pub wild: u8,
}

const KEYS: [&str; 4] = ["flag", "new-checkout", "größe", "a.b/c~d"];
const TEXTS: [&str; 22] = [
    "",
    "a",
    "on",
    "off",
    "gold",
    "10",
    "-3",
    " 12 ",
    "0x10",
    "1e3",
    "1.2.3",
    "v1.2",
    "2.0.0-rc.1",
    "1.2.3+b",
    "größe",
    "日本",
    "null",
    "true",
    "abc",
    "ABC",
    "ada@example.com",
    "5.0",
];
const VERSIONS: [&str; 12] = [
    "1.2.3",
    "v1.2",
    "1",
    "2.0.0-rc.1",
    "2.0.0-rc.2",
    "2.0.0",
    "1.2.3+b",
    "1.2.10",
    "1.2.3.4",
    "x",
    "V3.0.0",
    "01.2.3",
];
const COMPARISONS: [&str; 9] = ["=", "!=", ">", "<", ">=", "<=", "~", "^", "=="];
const NUMBERS: [f64; 16] = [
    0.0,
    -0.0,
    1.0,
    -1.0,
    2.0,
    3.0,
    0.5,
    1.5,
    10.0,
    18.0,
    100.0,
    1e21,
    1e-7,
    1e300,
    9_007_199_254_740_991.0,
    -7.25,
];
const VARIABLES: [&str; 24] = [
    "age",
    "age",
    "plan",
    "plan",
    "email",
    "version",
    "flag",
    "nothing",
    "tags",
    "items",
    "user",
    "user.name",
    "user.address.city",
    "gone",
    "user.gone",
    "gone.gone",
    "tags.0",
    "tags.length",
    "items.1.name",
    "plan.length",
    "targetingKey",
    "$flagd.flagKey",
    "count",
    "score",
];

pub fn case(random: &mut Rng, kind: Kind) -> Case {
    Maker {
        random,
        kind,
        looped: false,
    }
    .case()
}

struct Maker<'r> {
    random: &'r mut Rng,
    kind: Kind,
    /// Whether variables are those of a loop.
    looped: bool,
}

impl Maker<'_> {
    fn one<T: Clone>(&mut self, choices: &[T]) -> T {
        choices[self.random.usize(..choices.len())].clone()
    }

    fn chance(&mut self, percent: u8) -> bool {
        self.random.u8(..100) < percent
    }

    fn many(
        &mut self,
        least: usize,
        most: usize,
        mut make: impl FnMut(&mut Self) -> Value,
    ) -> Vec<Value> {
        let count = self.random.usize(least..=most);
        (0..count).map(|_| make(self)).collect()
    }

    fn case(&mut self) -> Case {
        let key = self.one(&KEYS);
        let mut flag = json!({"state": if self.chance(3) { "DISABLED" } else { "ENABLED" }});
        flag["variants"] = self.variants();
        match self.random.u8(..10) {
            0 => {}
            1 => flag["defaultVariant"] = Value::Null,
            _ => flag["defaultVariant"] = json!(self.one(&["on", "off"])),
        }
        if self.chance(97) {
            flag["targeting"] = self.targeting();
        }
        let mut set = json!({"flags": {key: flag}});
        set["metadata"] = json!({"fractional": self.kind.form});
        // The evaluator in Python can't load other characters here.
        let rule = self
            .rule()
            .to_string()
            .replace(|it: char| !it.is_ascii(), "u");
        let rule: Value = serde_json::from_str(&rule).unwrap();
        set["$evaluators"] = json!({"rule": rule, "deep": {"!": [{"var": "flag"}]}});
        let context = self.context();
        Case {
            set,
            key: key.to_owned(),
            context,
        }
    }

    /// An evaluator, which refers to no other.
    fn rule(&mut self) -> Value {
        loop {
            let rule = self.condition(2);
            if !rule.to_string().contains("$ref") {
                return rule;
            }
        }
    }

    /// A result that is an expression.
    fn targeting(&mut self) -> Value {
        loop {
            let result = self.result(4);
            if result.is_object() {
                return result;
            }
        }
    }

    fn variants(&mut self) -> Value {
        let names = [
            "on", "off", "true", "false", "0", "1", "10", "gold", "größe", "abc", "null", "3", "5",
            "anull",
        ];
        let kind = self.random.u8(..4);
        let values = names.iter().enumerate().map(|(index, name)| {
            let value = match kind {
                0 => json!(index % 2 == 0),
                1 => json!(format!("{name}!")),
                2 => json!(index as f64 / 2.0),
                _ => json!({ "of": name }),
            };
            ((*name).to_owned(), value)
        });
        Value::Object(values.collect())
    }

    fn context(&mut self) -> Map<String, Value> {
        let mut context = Map::new();
        let mut put = |name: &str, value: Value| context.insert(name.to_owned(), value);
        if self.chance(85) {
            put(
                "targetingKey",
                json!(self.one(&["user-1", "ada", "größe", "日本", "u"])),
            );
        }
        for (name, percent) in [("age", 90), ("count", 70), ("score", 70)] {
            if self.chance(percent) {
                put(name, self.number_value());
            }
        }
        for (name, percent) in [("plan", 90), ("email", 80)] {
            if self.chance(percent) {
                put(name, json!(self.one(&TEXTS)));
            }
        }
        put("version", json!(self.one(&VERSIONS)));
        if self.chance(80) {
            put("flag", json!(self.random.bool()));
        }
        put("nothing", Value::Null);
        put(
            "tags",
            Value::Array(self.many(0, 4, |it| {
                if it.chance(50) {
                    it.number_value()
                } else {
                    json!(it.one(&TEXTS))
                }
            })),
        );
        let item = |it: &mut Self| json!({"price": it.number_value(), "name": it.one(&TEXTS)});
        put("items", Value::Array(self.many(0, 3, item)));
        put(
            "user",
            json!({"name": self.one(&TEXTS), "address": {"city": self.one(&TEXTS)}}),
        );
        if self.chance(self.kind.wild) {
            let name = self.one(&["age", "plan", "flag", "tags", "version"]);
            put(name, self.value());
        }
        context
    }

    fn number_value(&mut self) -> Value {
        let number = self.one(&NUMBERS);
        // Both ways to write a whole number.
        if number.fract() == 0.0 && number.abs() < 1e6 && self.chance(60) {
            return json!(number as i64);
        }
        json!(number)
    }

    fn value(&mut self) -> Value {
        match self.random.u8(..8) {
            0 => Value::Null,
            1 => json!(self.random.bool()),
            2 | 3 => self.number_value(),
            4 | 5 => json!(self.one(&TEXTS)),
            6 => Value::Array(self.many(0, 3, Self::value)),
            _ => json!({"a": self.one(&TEXTS)}),
        }
    }

    /// What a rule gives in the end.
    fn result(&mut self, depth: u8) -> Value {
        match self.random.u8(..20) {
            0 => self.condition(depth),
            1 => self.text(depth),
            2 => self.number(depth),
            3 => json!({"var": self.one(&["plan", "flag", "gone", "count"])}),
            4 if self.kind.wild > 0 => self.any(depth),
            5..=9 if self.kind.shares => self.fractional(depth),
            _ => {
                let mut branches = vec![self.condition(depth), self.branch(depth)];
                while self.chance(30) {
                    branches.extend([self.condition(depth.saturating_sub(1)), self.branch(depth)]);
                }
                if self.chance(75) {
                    branches.push(self.branch(depth));
                }
                json!({ self.one(&["if", "if", "if", "?:"]): branches })
            }
        }
    }

    fn branch(&mut self, depth: u8) -> Value {
        match self.random.u8(..10) {
            0 => Value::Null,
            1 => json!(self.random.bool()),
            2 if depth > 1 => self.result(depth - 1),
            3 if depth > 1 && self.kind.shares => self.fractional(depth - 1),
            _ => json!(self.one(&["on", "off", "gold", "1", "größe"])),
        }
    }

    fn fractional(&mut self, depth: u8) -> Value {
        let mut shares = self.many(1, 4, |it| it.share(depth));
        if self.chance(50) {
            shares.insert(0, self.bucket_key(depth));
        }
        json!({ "fractional": shares })
    }

    fn bucket_key(&mut self, depth: u8) -> Value {
        match self.random.u8(..8) {
            0 if depth > 1 => json!({"cat": [{"var": "$flagd.flagKey"}, {"var": "email"}]}),
            1 => json!({"var": "gone"}),
            2 => json!({"var": "age"}),
            3 => json!({"var": "flag"}),
            4 if self.kind.form == "v3" => {
                json!({"var": self.one(&["user", "items.1", "score", "user.address"])})
            }
            _ => json!({"var": self.one(&["targetingKey", "email", "plan", "user.name"])}),
        }
    }

    fn share(&mut self, depth: u8) -> Value {
        let variant = match self.random.u8(..12) {
            0 => Value::Null,
            1 => json!(self.random.bool()),
            2 => json!({"if": [self.condition(depth.min(2)), "on", "off"]}),
            3 => json!({"var": "plan"}),
            _ => json!(self.one(&["on", "off", "gold", "1", "größe"])),
        };
        match self.random.u8(..12) {
            0 | 1 => json!([variant]),
            2 => json!([variant, {"if": [self.condition(depth.min(2)), 100, 0]}]),
            3 => json!([variant, self.one(&[0, -5, 2_147_483_647, 1])]),
            4 if self.kind.wild > 0 => json!([variant, self.scalar()]),
            _ => json!([variant, self.random.u8(1..100)]),
        }
    }

    /// An argument that should be of one type, and now and then is of any.
    fn typed(&mut self, depth: u8, make: fn(&mut Self, u8) -> Value) -> Value {
        if self.chance(self.kind.wild) {
            self.any(depth)
        } else {
            make(self, depth)
        }
    }

    fn any(&mut self, depth: u8) -> Value {
        match self.random.u8(..7) {
            0 => self.condition(depth),
            1 => self.number(depth),
            2 => self.text(depth),
            3 => self.list(depth),
            4 => self.variable(),
            5 => json!({"missing": self.many(0, 3, |it| json!(it.one(&VARIABLES)))}),
            _ => self.scalar(),
        }
    }

    fn scalar(&mut self) -> Value {
        match self.random.u8(..6) {
            0 => Value::Null,
            1 => json!(self.random.bool()),
            2 | 3 => self.number_value(),
            _ => json!(self.one(&TEXTS)),
        }
    }

    fn variable(&mut self) -> Value {
        let name = if self.looped {
            self.one(&["", "price", "name", "current", "accumulator", "length"])
        } else {
            self.one(&VARIABLES)
        };
        if self.chance(15) {
            json!({"var": [name, self.scalar()]})
        } else {
            json!({ "var": name })
        }
    }

    fn condition(&mut self, depth: u8) -> Value {
        let Some(depth) = depth.checked_sub(1) else {
            return json!({"==": [{"var": "plan"}, self.one(&TEXTS)]});
        };
        match self.random.u8(..22) {
            0 | 1 => self.compared(depth, &["==", "!=", "===", "!=="], Self::text),
            2 | 3 => self.compared(depth, &["==", "!=", "===", "!=="], Self::number),
            4 | 5 => self.compared(depth, &["<", "<=", ">", ">="], Self::number),
            6 => self.compared(depth, &["<", "<=", ">", ">="], Self::text),
            7 => {
                json!({self.one(&["<", "<=", ">", ">="]): [self.number(depth), self.number(depth), self.number(depth)]})
            }
            8 => json!({self.one(&["!", "!!"]): [self.typed(depth, Self::condition)]}),
            9 => json!({"!": self.typed(depth, Self::condition)}),
            10 | 11 => {
                json!({self.one(&["and", "or"]): self.many(1, 3, |it| it.typed(depth, Self::condition))})
            }
            12 => {
                json!({"in": [self.typed(depth, Self::text), self.many(0, 4, |it| json!(it.one(&TEXTS)))]})
            }
            13 => json!({"in": [self.typed(depth, Self::text), self.typed(depth, Self::text)]}),
            14 | 15 => {
                json!({self.one(&["starts_with", "ends_with"]): [self.typed(depth, Self::text), self.typed(depth, Self::text)]})
            }
            16 | 17 => self.sem_ver(depth),
            18 | 19 => self.each(depth, &["all", "some", "none"], Self::condition),
            20 if !self.looped => json!({"$ref": self.one(&["deep", "rule"])}),
            _ => json!({">": [{"var": "$flagd.timestamp"}, self.one(&[0, 4_000_000_000_u64])]}),
        }
    }

    fn compared(
        &mut self,
        depth: u8,
        operators: &[&str],
        make: fn(&mut Self, u8) -> Value,
    ) -> Value {
        json!({self.one(operators): [self.typed(depth, make), self.typed(depth, make)]})
    }

    fn sem_ver(&mut self, depth: u8) -> Value {
        let left = self.typed(
            depth,
            |it, _| json!({"var": it.one(&["version", "version", "version", "plan", "age"])}),
        );
        json!({"sem_ver": [left, self.one(&COMPARISONS), self.one(&VERSIONS)]})
    }

    fn each(&mut self, depth: u8, operators: &[&str], make: fn(&mut Self, u8) -> Value) -> Value {
        let list = self.typed(depth, Self::list);
        let outer = std::mem::replace(&mut self.looped, true);
        let rule = match self.random.u8(..4) {
            0 => make(self, depth.min(1)),
            1 => json!({">": [{"var": "price"}, self.number_value()]}),
            _ => json!({"==": [{"var": ""}, self.scalar()]}),
        };
        self.looped = outer;
        json!({self.one(operators): [list, rule]})
    }

    fn number(&mut self, depth: u8) -> Value {
        let Some(depth) = depth.checked_sub(1) else {
            return self.number_value();
        };
        let name = if self.looped {
            "price"
        } else {
            self.one(&["age", "count", "score"])
        };
        match self.random.u8(..10) {
            0 => {
                json!({self.one(&["+", "*"]): self.many(2, 3, |it| it.typed(depth, Self::number))})
            }
            1 => {
                json!({self.one(&["-", "/", "%"]): [self.typed(depth, Self::number), self.typed(depth, Self::number)]})
            }
            2 => json!({self.one(&["+", "-"]): [self.typed(depth, Self::number)]}),
            3 => {
                json!({self.one(&["max", "min"]): self.many(1, 3, |it| it.typed(depth, Self::number))})
            }
            4 => self.reduce(depth),
            5 | 6 => self.number_value(),
            _ => json!({ "var": name }),
        }
    }

    fn reduce(&mut self, depth: u8) -> Value {
        let list = self.typed(depth, Self::list);
        let step = self.one(&[
            json!({"+": [{"var": "current"}, {"var": "accumulator"}]}),
            json!({"max": [{"var": "current"}, {"var": "accumulator"}]}),
            json!({"+": [{"var": "current.price"}, {"var": "accumulator"}]}),
            json!({"+": [{"var": "accumulator"}, 1]}),
        ]);
        json!({"reduce": [list, step, self.number_value()]})
    }

    fn text(&mut self, depth: u8) -> Value {
        let Some(depth) = depth.checked_sub(1) else {
            return json!(self.one(&TEXTS));
        };
        let name = if self.looped {
            "name"
        } else {
            self.one(&["plan", "email", "user.name", "targetingKey"])
        };
        match self.random.u8(..10) {
            0 => json!({"cat": self.many(1, 3, |it| it.typed(depth, Self::text))}),
            1 => json!({"substr": [self.typed(depth, Self::text), self.random.i8(-4..5)]}),
            2 => {
                json!({"substr": [self.typed(depth, Self::text), self.random.i8(-4..5), self.random.i8(-3..4)]})
            }
            3 => json!({"if": [self.condition(depth), self.text(depth), self.text(depth)]}),
            4 | 5 => json!(self.one(&TEXTS)),
            _ => json!({ "var": name }),
        }
    }

    fn list(&mut self, depth: u8) -> Value {
        let Some(depth) = depth.checked_sub(1) else {
            return Value::Array(self.many(0, 3, |it| json!(it.one(&TEXTS))));
        };
        match self.random.u8(..9) {
            0 => self.each(depth, &["filter"], Self::condition),
            1 => self.each(depth, &["map"], Self::text),
            2 => json!({"merge": self.many(1, 3, |it| it.typed(depth, Self::list))}),
            3 => json!({"missing": self.many(1, 3, |it| json!(it.one(&VARIABLES)))}),
            4 => {
                json!({"missing_some": [self.random.u8(..3), self.many(1, 3, |it| json!(it.one(&VARIABLES)))]})
            }
            5 => Value::Array(self.many(0, 3, |it| it.typed(depth, Self::number))),
            _ => json!({"var": self.one(&["tags", "items"])}),
        }
    }
}
