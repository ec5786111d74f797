use crate::error::RecordsError;

/// What a parameter or a column holds.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// Nothing.
    Null,
    /// A whole number; also a date, in milliseconds since 1970, and a truth, as 0 or 1.
    Integer(i64),
    /// A number.
    Real(f64),
    /// A text.
    Text(String),
    /// Bytes.
    Bytes(Vec<u8>),
}

impl Value {
    /// How many bytes it holds, about.
    pub(crate) fn size(&self) -> usize {
        match self {
            Self::Null | Self::Integer(_) | Self::Real(_) => 8,
            Self::Text(text) => text.len(),
            Self::Bytes(bytes) => bytes.len(),
        }
    }

    fn kind(&self) -> &'static str {
        match self {
            Self::Null => "null",
            Self::Integer(_) => "a whole number",
            Self::Real(_) => "a number",
            Self::Text(_) => "a text",
            Self::Bytes(_) => "bytes",
        }
    }
}

/// The parameters of a statement: `params![name, 7, None::<i64>]`.
#[macro_export]
macro_rules! params {
    ($($value:expr),* $(,)?) => { [$($crate::Value::from($value)),*] };
}

macro_rules! from {
    ($($type:ty => $make:expr),* $(,)?) => {
        $(impl From<$type> for Value {
            fn from(value: $type) -> Self {
                $make(value)
            }
        })*
    };
}

from! {
    i64 => Value::Integer,
    i32 => |value| Value::Integer(i64::from(value)),
    u32 => |value| Value::Integer(i64::from(value)),
    bool => |value| Value::Integer(i64::from(value)),
    f64 => Value::Real,
    String => Value::Text,
    &str => |value: &str| Value::Text(value.to_owned()),
    &String => |value: &String| Value::Text(value.clone()),
    Vec<u8> => Value::Bytes,
    &[u8] => |value: &[u8]| Value::Bytes(value.to_vec()),
    &Value => |value: &Value| value.clone(),
}

impl<T: Into<Value>> From<Option<T>> for Value {
    fn from(value: Option<T>) -> Self {
        value.map_or(Value::Null, Into::into)
    }
}

/// One row of an answer.
#[derive(Clone, Debug, PartialEq)]
pub struct Row(pub(crate) Vec<Value>);

impl Row {
    /// The column `index`, from 0.
    ///
    /// # Errors
    ///
    /// [`Broken`](crate::Kind::Broken), if there is none, or it holds something else.
    pub fn get<T: FromValue>(&self, index: usize) -> Result<T, RecordsError> {
        let value = self.0.get(index).ok_or_else(|| {
            RecordsError::broken(format!("an answer has no column {index} (from 0)"))
        })?;
        T::from_value(value).ok_or_else(|| {
            let kind = value.kind();
            RecordsError::broken(format!("column {index} (from 0) of an answer is {kind}"))
        })
    }

    /// All columns.
    pub fn values(&self) -> &[Value] {
        &self.0
    }
}

/// What a column can be read as.
pub trait FromValue: Sized {
    /// Reads it; none if it is something else.
    fn from_value(value: &Value) -> Option<Self>;
}

impl FromValue for i64 {
    fn from_value(value: &Value) -> Option<Self> {
        match value {
            Value::Integer(number) => Some(*number),
            _ => None,
        }
    }
}

impl FromValue for bool {
    fn from_value(value: &Value) -> Option<Self> {
        i64::from_value(value).map(|number| number != 0)
    }
}

impl FromValue for f64 {
    fn from_value(value: &Value) -> Option<Self> {
        match value {
            Value::Real(number) => Some(*number),
            Value::Integer(number) => Some(*number as f64),
            _ => None,
        }
    }
}

impl FromValue for String {
    fn from_value(value: &Value) -> Option<Self> {
        match value {
            Value::Text(text) => Some(text.clone()),
            _ => None,
        }
    }
}

impl FromValue for Vec<u8> {
    fn from_value(value: &Value) -> Option<Self> {
        match value {
            Value::Bytes(bytes) => Some(bytes.clone()),
            _ => None,
        }
    }
}

impl<T: FromValue> FromValue for Option<T> {
    fn from_value(value: &Value) -> Option<Self> {
        match value {
            Value::Null => Some(None),
            value => T::from_value(value).map(Some),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_column_is_read_as_what_it_is() {
        let row = Row(params![7, "x", 1.5, vec![1u8], None::<i64>].to_vec());
        assert_eq!(row.get::<i64>(0).unwrap(), 7);
        assert_eq!(row.get::<f64>(0).unwrap(), 7.0);
        assert_eq!(row.get::<Option<String>>(1).unwrap().as_deref(), Some("x"));
        assert_eq!(row.get::<Option<i64>>(4).unwrap(), None);
        assert!(row.get::<i64>(1).is_err());
        assert!(row.get::<i64>(4).is_err());
        assert!(row.get::<i64>(5).is_err());
    }
}
