//! The peers' configuration files: text with `{{NAME}}` for values, and `{{#ROUTES}}` ... `{{/ROUTES}}` on lines of their
//! own around what is there once for each route, with `{{N}}` for its number.

use anyhow::{Result, bail};

/// Fills in a template; a name without a value is an error.
pub fn render(template: &str, routes: u32, values: &[(&str, String)]) -> Result<String> {
    let mut text = String::new();
    let mut repeated: Option<String> = None;
    for line in template.split_inclusive('\n') {
        match line.trim() {
            "{{#ROUTES}}" => repeated = Some(String::new()),
            "{{/ROUTES}}" => {
                let block = repeated.take().unwrap_or_default();
                for n in 1..=routes {
                    text.push_str(&block.replace("{{N}}", &n.to_string()));
                }
            }
            _ => repeated.as_mut().unwrap_or(&mut text).push_str(line),
        }
    }
    for (name, value) in values {
        text = text.replace(&format!("{{{{{name}}}}}"), value);
    }
    if let Some(rest) = text.split_once("{{") {
        let name: String = rest.1.chars().take(20).collect();
        bail!("the template wants a value for {name:?}");
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_and_routes_are_filled_in() {
        let template = "port {{PORT}}\n{{#ROUTES}}\nr{{N}} {{PORT}}\n{{/ROUTES}}\nend\n";
        let text = render(template, 2, &[("PORT", "80".to_owned())]).unwrap();
        assert_eq!(text, "port 80\nr1 80\nr2 80\nend\n");
    }

    #[test]
    fn a_forgotten_value_is_an_error() {
        let error = render("{{PORT}}", 1, &[]).unwrap_err().to_string();
        assert!(error.contains("PORT"), "{error}");
    }
}
