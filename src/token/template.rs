//! `template`: a text with places for the token and what belongs to it, for whatever no other format is made for.
//!
//! The language is Jinja's, by minijinja, with nothing that reaches out of it: no file, environment, network or time,
//! no other template. Names that mean nothing are refused, steps and output are bounded.

use std::collections::BTreeSet;
use std::io;

use base64::Engine;
use minijinja::syntax::SyntaxConfig;
use minijinja::value::Value;
use minijinja::{Environment, Error, ErrorKind, UndefinedBehavior, context};
use zeroize::Zeroizing;

/// What a template may name.
pub const NAMES: [&str; 10] =
    ["token", "expiresAt", "issuedAt", "target", "cluster", "namespace", "serviceAccount", "audiences", "server", "ca"];
/// Filters that a template may use.
const FILTERS: &str = "b64encode, join, lower, replace, tojson, upper";
/// Largest template and largest output, in bytes.
const LONGEST: usize = 64 << 10;
const LARGEST: usize = 1 << 20;
/// Steps that one rendering may take: some thousand turns of a loop.
const STEPS: u64 = 200_000;
/// Loops and conditions within each other.
const DEPTH: usize = 50;

/// Values for the names, each as a template sees it.
pub struct Names<'a> {
    /// The token.
    pub token: &'a str,
    /// RFC 3339, or empty where the token says none.
    pub expires_at: String,
    /// RFC 3339, or empty where the token says none.
    pub issued_at: String,
    /// Name of the target.
    pub target: &'a str,
    /// Name of its cluster.
    pub cluster: &'a str,
    /// Namespace of the account.
    pub namespace: &'a str,
    /// Name of the account.
    pub service_account: &'a str,
    /// For whom.
    pub audiences: &'a [String],
    /// URL of the API server.
    pub server: &'a str,
    /// CA certificates, PEM; empty where the host's own are used.
    pub ca: &'a str,
}

/// The names that the template uses.
///
/// # Errors
/// What is wrong with it, for people: syntax, an unknown name or filter, a size beyond bounds.
pub fn check(text: &str) -> Result<BTreeSet<String>, String> {
    if text.len() > LONGEST {
        return Err(format!("the template has {} bytes: 64 KiB is the most", text.len()));
    }
    let environment = environment();
    let template = environment.template_from_str(text).map_err(|error| explain(&error))?;
    let used: BTreeSet<String> = template.undeclared_variables(false).into_iter().collect();
    if let Some(unknown) = used.iter().find(|name| !NAMES.contains(&name.as_str())) {
        return Err(format!("the template names `{unknown}`, which means nothing: known are {}", NAMES.join(", ")));
    }
    let sample = Names {
        token: "e.y.J",
        expires_at: "2030-01-01T00:00:00Z".into(),
        issued_at: "2030-01-01T00:00:00Z".into(),
        target: "t",
        cluster: "c",
        namespace: "n",
        service_account: "s",
        audiences: &["a".to_owned(), "b".to_owned()],
        server: "https://s",
        ca: "-",
    };
    render(text, &sample)?;
    Ok(used)
}

/// The template with these values.
///
/// # Errors
/// What broke, with the line; never quotes a value.
pub fn render(text: &str, names: &Names<'_>) -> Result<Zeroizing<Vec<u8>>, String> {
    let environment = environment();
    let template = environment.template_from_str(text).map_err(|error| explain(&error))?;
    let values = context! {
        token => names.token,
        expiresAt => names.expires_at.as_str(),
        issuedAt => names.issued_at.as_str(),
        target => names.target,
        cluster => names.cluster,
        namespace => names.namespace,
        serviceAccount => names.service_account,
        audiences => names.audiences.iter().map(String::as_str).collect::<Value>(),
        server => names.server,
        ca => names.ca,
    };
    let mut output = Bounded(Zeroizing::new(Vec::with_capacity(16 << 10)));
    template.render_captured_to(values, &mut output).map_err(|error| explain(&error))?;
    Ok(output.0)
}

fn environment<'t>() -> Environment<'t> {
    let mut environment = Environment::empty();
    environment.set_undefined_behavior(UndefinedBehavior::Strict);
    let syntax = SyntaxConfig::builder().keep_trailing_newline(true).build();
    environment.set_syntax(syntax.expect("the usual delimiters differ from each other"));
    environment.set_fuel(Some(STEPS));
    environment.set_recursion_limit(DEPTH);
    environment.add_filter("b64encode", |text: &str| base64::engine::general_purpose::STANDARD.encode(text));
    environment.add_filter("upper", |text: &str| text.to_uppercase());
    environment.add_filter("lower", |text: &str| text.to_lowercase());
    environment.add_filter("replace", |text: &str, from: &str, to: &str| text.replace(from, to));
    environment.add_filter("join", |list: Vec<String>, gap: Option<&str>| list.join(gap.unwrap_or_default()));
    environment.add_filter("tojson", |value: Value| match value.as_str() {
        Some(text) => Ok(serde_json::Value::from(text).to_string()),
        None => Vec::<String>::try_from_value(value).map(|list| serde_json::Value::from(list).to_string()),
    });
    environment
}

/// Lists of texts, as the only list that a template has.
trait TryFromValue: Sized {
    fn try_from_value(value: Value) -> Result<Self, Error>;
}

impl TryFromValue for Vec<String> {
    fn try_from_value(value: Value) -> Result<Self, Error> {
        let element = |element: Value| element.as_str().map(str::to_owned);
        let list: Option<Self> = value.try_iter()?.map(element).collect();
        list.ok_or_else(|| Error::new(ErrorKind::InvalidOperation, "only texts and lists of texts have a JSON form here"))
    }
}

/// What went wrong and where, without the text around it.
fn explain(error: &Error) -> String {
    let line = error.line().map(|line| format!(" in its line {line}")).unwrap_or_default();
    match error.kind() {
        ErrorKind::UndefinedError => format!("the template uses something{line} that is not there"),
        ErrorKind::OutOfFuel => format!("the template takes too many steps{line}"),
        ErrorKind::UnknownFilter => format!("the template has a filter{line} that is unknown: known are {FILTERS}"),
        ErrorKind::WriteFailure => "the template writes more than 1 MiB".into(),
        ErrorKind::UnknownFunction => format!("the template calls a function{line}, and there are none"),
        kind => {
            let detail = error.detail().map(|detail| format!(": {detail}")).unwrap_or_default();
            format!("the template is wrong{line} ({kind}{detail})")
        }
    }
}

/// Takes no more than it may.
struct Bounded(Zeroizing<Vec<u8>>);

impl io::Write for Bounded {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.0.len() + bytes.len() > LARGEST {
            return Err(io::ErrorKind::WriteZero.into());
        }
        self.0.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn rendered(text: &str) -> Result<String, String> {
        let names = Names {
            token: "e.y\"J",
            expires_at: "2030-01-01T00:00:00Z".into(),
            issued_at: "2029-01-01T00:00:00Z".into(),
            target: "ci",
            cluster: "prod",
            namespace: "cicd",
            service_account: "bot",
            audiences: &["a".into(), "b".into()],
            server: "https://s",
            ca: "",
        };
        render(text, &names).map(|bytes| String::from_utf8(bytes.to_vec()).unwrap())
    }

    #[test]
    fn every_name_has_its_value_and_text_stays_as_it_is() {
        let text = "machine {{ server }} login {{ namespace }}/{{ serviceAccount }} password {{ token }} # <&>\n";
        assert_eq!(rendered(text).unwrap(), "machine https://s login cicd/bot password e.y\"J # <&>\n");
        let text = "{{ target }} {{ cluster }} {{ expiresAt }} {{ issuedAt }} [{{ ca }}]{% for a in audiences %}{% if not loop.first %},{% endif %}{{ a }}{% endfor %}";
        assert_eq!(rendered(text).unwrap(), "ci prod 2030-01-01T00:00:00Z 2029-01-01T00:00:00Z []a,b");
        assert_eq!(
            rendered("{{ token | tojson }} {{ audiences | tojson }} {{ audiences | join('+') }}").unwrap(),
            "\"e.y\\\"J\" [\"a\",\"b\"] a+b"
        );
        assert_eq!(rendered("{{ token | b64encode }}{{ 'x' | upper }}{{ 'Y' | lower | replace('y', 'z') }}").unwrap(), "ZS55Iko=Xz");
    }

    #[test]
    fn what_a_template_may_not_do_is_refused_before_it_is_used() {
        for (text, said) in [
            ("{{ tokn }}", "names `tokn`, which means nothing: known are token"),
            ("{% if false %}{{ secret }}{% endif %}", "names `secret`"),
            ("{{ token.x }}", "not there"),
            ("{{ token", "line 1"),
            ("\n{{ token | shell }}", "filter in its line 2 that is unknown"),
            ("{{ env('HOME') }}", "names `env`"),
            ("{% include '/etc/passwd' %}", "the template is wrong in its line 1"),
            ("{% import '/etc/passwd' as x %}", "the template is wrong"),
            ("{% macro a() %}{{ a() }}{% endmacro %}{{ a() }}", "the template is wrong"),
            ("{% for i in range(10) %}{% endfor %}", "names `range`"),
            ("{{ 'x' * 2000000 }}", "more than 1 MiB"),
        ] {
            let error = check(text).expect_err(text);
            assert!(error.contains(said), "{text}: {error}");
        }
        let nested = (0..8).fold("x".to_owned(), |inner, n| format!("{{% for v{n} in 'abcdefghijklmnop' * 4 %}}{inner}{{% endfor %}}"));
        let error = check(&nested).unwrap_err();
        assert!(error.contains("1 MiB") || error.contains("too many steps"), "{error}");
        assert!(check(&" ".repeat(LONGEST + 1)).unwrap_err().contains("64 KiB"));
    }

    #[test]
    fn the_names_that_a_template_uses_are_known() {
        assert_eq!(
            check("{{ server }} {% for a in audiences %}{{ a }}{% endfor %}").unwrap().into_iter().collect::<Vec<_>>(),
            ["audiences", "server"]
        );
        assert!(check("plain").unwrap().is_empty());
    }

    proptest! {
        #[test]
        fn no_text_breaks_the_renderer(text in "[{}%#a-z |.'\"~*()0-9\n-]{0,60}") {
            let _ = check(&text);
        }
    }
}
