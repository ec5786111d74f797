//! What a page says that the reader does.

/// A page as far as it is run.
pub struct Page {
    pub steps: Vec<Step>,
}

pub struct Step {
    /// Where it stands, counted from 1.
    pub line: usize,
    pub block: Block,
}

pub enum Block {
    File(File),
    Run(Run),
}

/// A file, and what is written to it.
pub struct File {
    pub name: String,
    pub text: String,
    /// Behind what is there.
    pub append: bool,
}

/// Commands and what they print.
pub struct Run {
    pub script: String,
    pub mode: Mode,
    pub exit: i32,
    /// `None` when the page does not say.
    pub expected: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    Once,
    Retry,
    Background,
}

impl Page {
    pub fn parse(path: &str, text: &str) -> Self {
        let mut steps: Vec<Step> = Vec::new();
        // Whether a block of text tells what the step before it prints.
        let mut may_tell = false;
        for fence in fences(text) {
            let words: Vec<&str> = fence.info.split_whitespace().collect();
            if words == ["text"] && may_tell {
                if let Some(Block::Run(run)) = steps.last_mut().map(|step| &mut step.block) {
                    run.expected = Some(fence.text);
                }
                may_tell = false;
                continue;
            }
            may_tell = words.get(1) == Some(&"test");
            if may_tell {
                let block = block(&words[2..], fence.text)
                    .unwrap_or_else(|word| panic!("{path}:{}: `{word}`?", fence.line));
                steps.push(Step {
                    line: fence.line,
                    block,
                });
            }
        }
        Self { steps }
    }
}

fn block<'a>(words: &[&'a str], text: String) -> Result<Block, &'a str> {
    let mut run = Run {
        script: text,
        mode: Mode::Once,
        exit: 0,
        expected: None,
    };
    for word in words {
        match word.split_once('=') {
            Some((kind @ ("file" | "append"), name)) => {
                return Ok(Block::File(File {
                    name: name.to_owned(),
                    text: run.script,
                    append: kind == "append",
                }));
            }
            Some(("exit", code)) => run.exit = code.parse().map_err(|_| *word)?,
            None if *word == "retry" => run.mode = Mode::Retry,
            None if *word == "background" => run.mode = Mode::Background,
            _ => return Err(word),
        }
    }
    Ok(Block::Run(run))
}

struct Fence<'a> {
    line: usize,
    info: &'a str,
    text: String,
}

/// The fenced blocks and the comments, in their order.
fn fences(text: &str) -> Vec<Fence<'_>> {
    let mut found = Vec::new();
    let mut lines = text.lines().enumerate();
    while let Some((at, line)) = lines.next() {
        let opened = line.strip_prefix("```").map(|info| (info, "```"));
        let opened = opened.or_else(|| line.strip_prefix("<!--").map(|info| (info, "-->")));
        let Some((info, close)) = opened else {
            continue;
        };
        let within = lines.by_ref().take_while(|(_, line)| *line != close);
        let text = within.map(|(_, line)| format!("{line}\n")).collect();
        let line = at + 1;
        found.push(Fence { line, info, text });
    }
    found
}

#[test]
fn a_page_is_read_in_its_order() {
    let page = Page::parse(
        "page",
        "A\n```sh test exit=3\nls x\n```\nprints\n```text\nno\n```\n```text\nother\n```\n\
         ```toml test file=a.toml\nb = 1\n```\n```sh\nleft alone\n```\n\
         <!-- sh test background\nhydrant up\n-->\n",
    );
    let steps: Vec<_> = page
        .steps
        .iter()
        .map(|step| match &step.block {
            Block::File(file) => format!("{} {} {}", step.line, file.name, file.text),
            Block::Run(run) => {
                let Run {
                    script,
                    mode,
                    exit,
                    expected,
                } = run;
                format!("{} {script:?} {mode:?} {exit} {expected:?}", step.line)
            }
        })
        .collect();
    assert_eq!(
        steps,
        [
            r#"2 "ls x\n" Once 3 Some("no\n")"#,
            "12 a.toml b = 1\n",
            r#"18 "hydrant up\n" Background 0 None"#
        ]
    );
}
