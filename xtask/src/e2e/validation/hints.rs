//! What rules speak of: the literals in them, which are values worth to try.

/// What rules near a place mention.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Hints {
    pub texts: Vec<String>,
    pub numbers: Vec<i64>,
}

impl Hints {
    /// The literals of rules.
    pub fn of<'r>(rules: impl IntoIterator<Item = &'r str>) -> Self {
        let mut hints = Self::default();
        for rule in rules {
            let mut rest = rule;
            while let Some(start) = rest.find(['\'', '"']) {
                hints.read_numbers(&rest[..start]);
                let quote = rest.as_bytes()[start];
                let after = &rest[start + 1..];
                let Some(end) = after.bytes().position(|byte| byte == quote) else {
                    break;
                };
                let text = after[..end].replace(r"\\", r"\");
                if !hints.texts.contains(&text) {
                    hints.texts.push(text);
                }
                rest = &after[end + 1..];
            }
            hints.read_numbers(rest);
        }
        hints
    }

    fn read_numbers(&mut self, code: &str) {
        for word in code.split(|c: char| !c.is_ascii_alphanumeric()) {
            if let Ok(number) = word.parse::<i64>() {
                for number in [number - 1, number, number + 1] {
                    if !self.numbers.contains(&number) {
                        self.numbers.push(number);
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn literals_of_rules_are_hints() {
        let hints = Hints::of([
            "self.kind == 'Service' && size(self.b2) <= 16",
            "self.matches(\"^a$\")",
        ]);
        assert_eq!(hints.texts, ["Service", "^a$"]);
        assert_eq!(hints.numbers, [15, 16, 17]);
    }
}
