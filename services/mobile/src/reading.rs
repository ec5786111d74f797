//! Reading small documents: what serde finds wrong, with its line.

use hydrant_flags::Mistake;
use serde::de::DeserializeOwned;

use crate::documents::DocumentId;

/// Reads the text of a document.
///
/// # Errors
///
/// What is wrong with it, and on which line.
pub(crate) fn read<T: DeserializeOwned>(id: &DocumentId, text: &str) -> Result<T, Mistake> {
    // serde would take a list of the fields' values, too.
    if text.trim_start().starts_with('[') {
        let message = "it is a list, where a JSON object belongs";
        return Err(Mistake::at("", message).of(id.to_string()));
    }
    serde_json::from_str(text).map_err(|error| located(&error).of(id.to_string()))
}

/// The mistake that serde_json tells of; its message ends with the place, which has fields of its own.
fn located(error: &serde_json::Error) -> Mistake {
    let message = error.to_string();
    let place = format!(" at line {} column {}", error.line(), error.column());
    let mut mistake = Mistake::at("", message.strip_suffix(&place).unwrap_or(&message));
    mistake.line = u32::try_from(error.line()).unwrap_or(u32::MAX);
    mistake.column = u32::try_from(error.column()).unwrap_or(u32::MAX);
    mistake
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;
    use crate::documents::Kind;

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Small {
        #[expect(dead_code, reason = "only read")]
        one: u8,
    }

    #[test]
    fn a_mistake_has_its_line() {
        let id = DocumentId::new(Kind::Settings, "settings").unwrap();
        let mistake = read::<Small>(&id, "{\n  \"two\": 2\n}").unwrap_err();
        assert_eq!((mistake.line, &*mistake.document), (2, "settings/settings"));
        assert_eq!(mistake.message, "unknown field `two`, expected `one`");
        assert_eq!(read::<Small>(&id, "").unwrap_err().line, 1);
        assert!(read::<Small>(&id, " [1]").is_err());
    }
}
