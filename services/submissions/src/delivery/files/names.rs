//! How files are called: the same at every attempt, so that a repeat finds what is there.

use crate::delivery::facts::Facts;
use crate::forms::template::Template;
use crate::proto::Task;

/// The longest name that is taken over from a client, in characters.
const MAX_NAME: usize = 100;

/// The names of one delivery.
pub(super) struct Names {
    /// The submission's own folder.
    pub(super) folder: String,
    /// The attachments' files in it, in their order.
    pub(super) files: Vec<String>,
    /// What temporary names of this step begin with.
    beginning: String,
    epoch: u64,
}

impl Names {
    pub(super) fn new(facts: &Facts<'_>, folder: &Template, task: &Task) -> Self {
        let files = task.attachments.iter().enumerate();
        Self {
            folder: facts.text(folder, safe),
            files: files
                .map(|(number, one)| format!("{:03}-{}", number + 1, safe(&one.name)))
                .collect(),
            beginning: format!(".{}.{}.", task.id, task.step),
            epoch: task.epoch,
        }
    }

    /// A file in the submission's folder.
    pub(super) fn path(&self, name: &str) -> String {
        format!("{}/{name}", self.folder)
    }

    /// Where a file is while it is not whole: each lease has names of its own.
    pub(super) fn temporary(&self, number: usize) -> String {
        let (beginning, epoch) = (&self.beginning, self.epoch);
        self.path(&format!("{beginning}{epoch}.{number}.part"))
    }

    /// Whether an earlier attempt left this, or this lease's own last one.
    pub(super) fn is_left_over(&self, name: &str) -> bool {
        let epoch = name
            .strip_prefix(&self.beginning)
            .and_then(|rest| rest.strip_suffix(".part"))
            .and_then(|rest| rest.split_once('.'))
            .and_then(|(epoch, _)| epoch.parse::<u64>().ok());
        epoch.is_some_and(|epoch| epoch <= self.epoch)
    }
}

/// As a name that leads nowhere else, on any system: letters, digits, `.`, `-` and `_`, no dot in front.
fn safe(text: &str) -> String {
    let letter = |letter: char| match letter {
        _ if letter.is_ascii_alphanumeric() || "-_.".contains(letter) => letter,
        _ => '_',
    };
    let name: String = text.chars().map(letter).collect();
    // The end has what tells the type.
    let skipped = name.len().saturating_sub(MAX_NAME);
    let name = &name[skipped..];
    match name.strip_prefix('.') {
        Some(rest) => format!("_{rest}"),
        None if name.is_empty() => "_".into(),
        None => name.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::delivery::facts::tests::task;

    #[test]
    fn a_folder_stays_where_it_belongs_whatever_the_client_says() {
        let task = task("{}");
        let facts = Facts::new(&task).unwrap();
        let template = Template::parse("{store}/{id}").unwrap();
        let names = Names::new(&facts, &template, &task);
        assert_eq!(names.folder, format!("7_..__x_/{}", task.id));
    }

    #[test]
    fn only_parts_of_earlier_leases_of_this_step_are_left_over() {
        let task = task("{}");
        let facts = Facts::new(&task).unwrap();
        let names = Names::new(&facts, &Template::parse("{id}").unwrap(), &task);
        let id = &task.id;
        for (name, is_left) in [
            (format!(".{id}.0.1.0.part"), true),
            (format!(".{id}.0.0.12.part"), true),
            (format!(".{id}.0.2.0.part"), false),
            (format!(".{id}.1.1.0.part"), false),
            (format!(".{id}.0.x.0.part"), false),
            ("manifest.json".into(), false),
            (".other.0.1.0.part".into(), false),
        ] {
            assert_eq!(names.is_left_over(&name), is_left, "{name}");
        }
    }

    proptest! {
        #[test]
        fn a_safe_name_is_one_plain_name(text in any::<String>()) {
            let name = safe(&text);
            prop_assert!(!name.is_empty() && name.len() <= MAX_NAME && !name.starts_with('.'));
            prop_assert!(name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte)));
        }
    }
}
