//! Tokens of tools, as OpenAI's cookbook counts functions: name, description, and each property of the schema.

use super::{ChatError, Reason, Tally};
use crate::json::{Cursor, JsonError, Kind, Value};

const PROPERTIES: u64 = 3;
const PROPERTY: u64 = 3;
const ENUM: i64 = -3;
const ENUM_ITEM: i64 = 3;
const END: u64 = 12;

/// What the cookbook's function reads of a schema; anything else makes the count an estimate.
const PLAIN_SCHEMA: [&str; 4] = ["type", "properties", "required", "additionalProperties"];
const PLAIN_PROPERTY: [&str; 3] = ["type", "description", "enum"];

impl Tally<'_> {
    /// `tools` or, with `wrapped` false, the older `functions`.
    pub(super) fn tools(&mut self, cursor: &mut Cursor<'_>, wrapped: bool) -> Result<(), ChatError> {
        if cursor.peek()? != Kind::Array {
            return Ok(cursor.skip()?);
        }
        let mut items = cursor.array()?;
        let mut any = false;
        while items.next(cursor)? {
            any = true;
            self.tool(cursor.value()?, wrapped)?;
        }
        if any {
            self.tokens += END;
        }
        Ok(())
    }

    fn tool(&mut self, tool: Value<'_>, wrapped: bool) -> Result<(), ChatError> {
        let function = if wrapped { member(tool, "function")? } else { Some(tool) };
        match function.filter(|function| function.kind == Kind::Object) {
            Some(function) => self.function(function),
            None => {
                // A tool that is no function (`custom`, and those of other servers): its text as it stands.
                self.doubt(Reason::ToolSchema);
                self.tokens += self.family.tool_start;
                self.text(tool.raw)?;
                Ok(())
            }
        }
    }

    fn function(&mut self, function: Value<'_>) -> Result<(), ChatError> {
        self.tokens += self.family.tool_start;
        let (mut name, mut description, mut parameters) = (String::new(), None, None);
        let mut cursor = Cursor::new(function.raw);
        let mut members = cursor.object()?;
        while let Some(key) = members.next(&mut cursor)? {
            let value = cursor.value()?;
            match key.decode().as_ref() {
                "name" => name = text_of(value),
                "description" if !value.is_null() => description = Some(text_of(value)),
                "parameters" if !value.is_null() => parameters = Some(value),
                "strict" | "description" | "parameters" => {}
                _ => self.doubt(Reason::ToolSchema),
            }
        }
        if description.is_none() || parameters.is_none() {
            self.doubt(Reason::ToolSchema);
        }
        let description = description.unwrap_or_default();
        self.text(&format!("{name}:{}", without_dot(&description)))?;
        parameters.map_or(Ok(()), |schema| self.schema(schema))
    }

    /// A schema of an object: its properties, one after another.
    fn schema(&mut self, schema: Value<'_>) -> Result<(), ChatError> {
        if schema.kind != Kind::Object {
            self.doubt(Reason::ToolSchema);
            return Ok(());
        }
        let mut cursor = Cursor::new(schema.raw);
        let mut members = cursor.object()?;
        while let Some(key) = members.next(&mut cursor)? {
            let value = cursor.value()?;
            if key.is("properties") && value.kind == Kind::Object {
                self.properties(value)?;
            } else if !PLAIN_SCHEMA.iter().any(|plain| key.is(plain)) {
                self.doubt(Reason::ToolSchema);
                self.text(value.raw)?;
            }
        }
        Ok(())
    }

    fn properties(&mut self, properties: Value<'_>) -> Result<(), ChatError> {
        let mut cursor = Cursor::new(properties.raw);
        let mut members = cursor.object()?;
        let mut any = false;
        while let Some(key) = members.next(&mut cursor)? {
            any = true;
            let value = cursor.value()?;
            self.property(&key.decode(), value)?;
        }
        if any {
            self.tokens += PROPERTIES;
        }
        Ok(())
    }

    fn property(&mut self, name: &str, property: Value<'_>) -> Result<(), ChatError> {
        self.tokens += PROPERTY;
        let (mut kind, mut description) = (None, None);
        if property.kind == Kind::Object {
            let mut cursor = Cursor::new(property.raw);
            let mut members = cursor.object()?;
            while let Some(key) = members.next(&mut cursor)? {
                let value = cursor.value()?;
                match key.decode().as_ref() {
                    "type" if value.kind == Kind::String => kind = Some(text_of(value)),
                    "description" if value.kind == Kind::String => description = Some(text_of(value)),
                    "enum" if value.kind == Kind::Array => self.choices(value)?,
                    _ => self.inner(key.raw(), value)?,
                }
            }
        }
        if kind.is_none() || description.is_none() {
            self.doubt(Reason::ToolSchema);
        }
        let (kind, description) = (kind.unwrap_or_default(), description.unwrap_or_default());
        self.text(&format!("{name}:{kind}:{}", without_dot(&description)))?;
        Ok(())
    }

    /// What the cookbook does not read: nested objects by the same rules, everything else by its text.
    fn inner(&mut self, key: &str, value: Value<'_>) -> Result<(), ChatError> {
        debug_assert!(!PLAIN_PROPERTY.contains(&key) || value.kind != Kind::String);
        self.doubt(Reason::ToolSchema);
        match (key, value.kind) {
            ("properties", Kind::Object) => self.properties(value),
            ("items", Kind::Object) => self.schema(value),
            _ => {
                self.text(value.raw)?;
                Ok(())
            }
        }
    }

    fn choices(&mut self, list: Value<'_>) -> Result<(), ChatError> {
        let mut cursor = Cursor::new(list.raw);
        let mut items = cursor.array()?;
        // The cookbook takes 3 off for the list, however short it is.
        let mut tokens = ENUM;
        while items.next(&mut cursor)? {
            let item = cursor.value()?;
            if item.kind != Kind::String {
                self.doubt(Reason::ToolSchema);
            }
            tokens += ENUM_ITEM;
            self.text(&text_of(item))?;
        }
        self.tokens = self.tokens.saturating_add_signed(tokens);
        Ok(())
    }
}

/// The last member of that name.
pub(super) fn member<'a>(object: Value<'a>, name: &str) -> Result<Option<Value<'a>>, JsonError> {
    if object.kind != Kind::Object {
        return Ok(None);
    }
    let mut cursor = Cursor::new(object.raw);
    let mut members = cursor.object()?;
    let mut found = None;
    while let Some(key) = members.next(&mut cursor)? {
        let value = cursor.value()?;
        if key.is(name) {
            found = Some(value);
        }
    }
    Ok(found)
}

/// The text of a string, and of anything else what is written.
pub(super) fn text_of(value: Value<'_>) -> String {
    value.as_text().map_or_else(|| value.raw.to_owned(), |text| text.decode().into_owned())
}

fn without_dot(text: &str) -> &str {
    text.strip_suffix('.').unwrap_or(text)
}
