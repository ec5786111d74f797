use std::borrow::Cow;

/// Which SQL a database speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dialect {
    /// SQLite.
    Sqlite,
    /// MariaDB.
    MariaDb,
}

/// A statement: one text for both databases, or one for each. Only texts of the program itself are
/// statements; what comes from outside is a parameter.
#[derive(Clone, Debug)]
pub struct Sql {
    sqlite: Cow<'static, str>,
    mariadb: Cow<'static, str>,
}

impl Sql {
    /// One text for each, where they have to differ.
    pub const fn each(sqlite: &'static str, mariadb: &'static str) -> Self {
        Self {
            sqlite: Cow::Borrowed(sqlite),
            mariadb: Cow::Borrowed(mariadb),
        }
    }

    /// The same text for both.
    pub const fn both(text: &'static str) -> Self {
        Self::each(text, text)
    }

    /// A text that this crate has put together from names that the program itself wrote.
    pub(crate) fn built(dialect: Dialect, text: String) -> Self {
        let empty = Cow::Borrowed("");
        match dialect {
            Dialect::Sqlite => Self {
                sqlite: text.into(),
                mariadb: empty,
            },
            Dialect::MariaDb => Self {
                sqlite: empty,
                mariadb: text.into(),
            },
        }
    }

    pub(crate) fn text(&self, dialect: Dialect) -> &Cow<'static, str> {
        match dialect {
            Dialect::Sqlite => &self.sqlite,
            Dialect::MariaDb => &self.mariadb,
        }
    }
}

impl From<&'static str> for Sql {
    fn from(text: &'static str) -> Self {
        Self::both(text)
    }
}
