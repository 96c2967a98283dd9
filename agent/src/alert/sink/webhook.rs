//! An HTTP server that takes notices as JSON.

use std::path::Path;
use std::sync::Arc;

use hmac::{Hmac, KeyInit as _, Mac as _};
use serde_json::{Value, json};
use sha2::Sha256;
use ureq::tls::{Certificate, PemItem, RootCerts, TlsConfig, parse_pem};

use super::message::{Message, Notice, Summary};
use super::text::{opening, printable, table};
use super::worker::{Deliver, Failure};
use crate::alert::settings::{Template, Webhook};
use crate::detect::{Kind, Severity};

pub(super) struct Hook {
    pub(super) settings: Webhook,
    pub(super) host: String,
}

impl Deliver for Hook {
    fn deliver(&mut self, message: &Message) -> Result<(), Failure> {
        let settings = &self.settings;
        let body = match settings.template {
            Template::Json => message.json(&self.host),
            Template::Slack => slack(message, &self.host),
        }
        .to_string();
        let mut request = agent(settings)?.post(&settings.url).header("Content-Type", "application/json");
        if let Some(file) = &settings.secret_file {
            request = request.header("X-Portreeve-Signature", signature(&secret(file)?, now(), &body)?);
        }
        let server = server(&settings.url);
        let answer = request.send(body).map_err(|error| Failure::later("post to", &server, error))?;
        judge(answer.status().as_u16(), &server)
    }
}

/// What the answer means: of the faults of ours, only "took too long" and "too many" may pass (RFC 9110 §15.5.9,
/// RFC 6585 §4). Redirections are not followed, because the body is signed for this server and nobody else.
fn judge(status: u16, server: &str) -> Result<(), Failure> {
    let why = format!("{server} answered {status}");
    match status {
        200..=299 => Ok(()),
        408 | 429 | 500..=599 => Err(Failure::Later { why }),
        _ => Err(Failure::Never { why }),
    }
}

/// The server's part of the URL: the rest may be a secret.
fn server(url: &str) -> String {
    let uri: Option<ureq::http::Uri> = url.parse().ok();
    let authority = uri.as_ref().and_then(|uri| Some((uri.scheme_str()?, uri.host()?, uri.port_u16())));
    match authority {
        Some((scheme, host, Some(port))) => format!("{scheme}://{host}:{port}"),
        Some((scheme, host, None)) => format!("{scheme}://{host}"),
        None => "the webhook's server".to_owned(),
    }
}

fn agent(settings: &Webhook) -> Result<ureq::Agent, Failure> {
    let mut config = ureq::Agent::config_builder()
        .timeout_global(Some(settings.timeout))
        .http_status_as_error(false)
        .max_redirects(0)
        .max_redirects_will_error(false)
        .user_agent(concat!("portreeve/", env!("CARGO_PKG_VERSION")))
        // Only what the policy says: the environment of a service is no place to look for it.
        .proxy(None);
    if let Some(proxy) = &settings.proxy {
        let proxy = ureq::Proxy::new(proxy).map_err(|error| Failure::later("use the proxy", proxy, error))?;
        config = config.proxy(Some(proxy));
    }
    if settings.url.starts_with("https:") {
        let tls = TlsConfig::builder().root_certs(authorities(&settings.ca_file)?).build();
        config = config.https_only(true).tls_config(tls);
    }
    Ok(config.build().new_agent())
}

/// Read each time, because authorities and their certificates change while the agent runs.
fn authorities(file: &Path) -> Result<RootCerts, Failure> {
    let read = |error: &dyn std::fmt::Display| Failure::later("read the certificates in", file.display(), error);
    let pem = std::fs::read(file).map_err(|error| read(&error))?;
    let mut certificates: Vec<Certificate<'static>> = Vec::new();
    for item in parse_pem(&pem) {
        if let PemItem::Certificate(certificate) = item.map_err(|error| read(&error))? {
            certificates.push(certificate);
        }
    }
    if certificates.is_empty() {
        return Err(read(&"there is none in it"));
    }
    Ok(RootCerts::Specific(Arc::new(certificates)))
}

fn secret(file: &Path) -> Result<Vec<u8>, Failure> {
    let text = std::fs::read(file).map_err(|error| Failure::later("read the secret in", file.display(), error))?;
    let secret = text.trim_ascii().to_vec();
    // An empty one would be a signature that everybody can make.
    if secret.is_empty() {
        return Err(Failure::later("read the secret in", file.display(), "the file is empty"));
    }
    Ok(secret)
}

fn now() -> i64 {
    jiff::Timestamp::now().as_second()
}

/// The header's value: `t=`, the time in seconds since 1970, and `v1=`, the HMAC-SHA-256 (RFC 2104) of the time, a dot
/// and the body. With the time in it nobody can play an old notice again.
fn signature(secret: &[u8], time: i64, body: &str) -> Result<String, Failure> {
    let mut mac = Hmac::<Sha256>::new_from_slice(secret)
        .map_err(|error| Failure::Never { why: format!("cannot sign with the secret: {error}") })?;
    mac.update(format!("{time}.{body}").as_bytes());
    let sum: String = mac.finalize().into_bytes().iter().map(|byte| format!("{byte:02x}")).collect();
    Ok(format!("t={time},v1={sum}"))
}

/// A message with one attachment, as Slack's and Mattermost's incoming webhooks take it.
fn slack(message: &Message, host: &str) -> Value {
    let color = match message.severity() {
        Severity::Critical => "danger",
        Severity::Warning => "warning",
        Severity::Notice => "#3aa3e3",
    };
    let headline = escape(&message.headline());
    let (title, text, fields) = match message {
        Message::Notice(notice) => (escape(&opening(notice)), slack_text(notice), slack_fields(notice)),
        Message::Summary(summary) => (format!("{} alerts", summary.alerts), code(&table(summary)), counts(summary)),
    };
    json!({
        "text": format!("*{}*: {headline}", escape(host)),
        "attachments": [{
            "fallback": headline,
            "color": color,
            "title": title,
            "text": text,
            "fields": fields,
            "mrkdwn_in": ["text"],
        }],
    })
}

fn slack_text(notice: &Notice) -> String {
    let alert = &notice.alert;
    let mut text = code(&printable(&alert.who.name));
    for kind in alert.tests() {
        text += &format!("\n{kind}: {}", kind.means());
    }
    for next in &alert.next {
        text += &format!("\n• {}", escape(&printable(next)));
    }
    text + &format!("\n`portreeve alerts show {}`", alert.id)
}

fn slack_fields(notice: &Notice) -> Vec<Value> {
    let shown = ["severity", "attempts", "refused", "user", "unit", "exe", "first", "last"];
    let fields = Message::Notice(notice.clone()).fields().into_iter().filter(|(name, _)| shown.contains(name));
    fields
        .map(|(name, value)| json!({"title": name, "value": escape(&printable(&value)), "short": name != "exe"}))
        .collect()
}

fn counts(summary: &Summary) -> Vec<Value> {
    let join = |counts: Vec<(&str, usize)>| {
        counts.into_iter().map(|(name, count)| format!("{count} {name}")).collect::<Vec<_>>().join(", ")
    };
    let severity = join(summary.by_severity.iter().map(|(name, count)| (Severity::name(*name), *count)).collect());
    let test = join(summary.by_test.iter().map(|(name, count)| (Kind::name(*name), *count)).collect());
    vec![
        json!({"title": "severity", "value": severity, "short": true}),
        json!({"title": "found by", "value": test, "short": true}),
    ]
}

/// A block in which nothing has a meaning. Without it a program's name could call everybody or be a link.
fn code(text: &str) -> String {
    format!("```\n{}\n```", escape(text))
}

/// The three characters that mean something to Slack everywhere, and what calls people or ends a block in Mattermost.
fn escape(text: &str) -> String {
    let text = text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
    text.replace('@', "@\u{2060}").replace('`', "'")
}

#[cfg(test)]
mod tests {
    use super::super::tests::{alert, notice, summary};
    use super::*;
    use crate::alert::Occasion;

    #[test]
    fn the_signature_is_hmac_sha256_of_the_time_and_the_body() {
        // As openssl has it: printf '1700000000.{"a":1}' | openssl dgst -sha256 -hmac Jefe
        let expected = "t=1700000000,v1=fa5f6481efc59da48b19c9dc10196c9953e5651f8304b3a318b6b87d70272e0a";
        assert_eq!(signature(b"Jefe", 1_700_000_000, "{\"a\":1}").unwrap(), expected);
    }

    #[test]
    fn only_what_may_pass_is_tried_again() {
        for status in [200, 204, 299] {
            assert_eq!(judge(status, "x"), Ok(()));
        }
        for status in [408, 429, 500, 503] {
            assert!(matches!(judge(status, "x"), Err(Failure::Later { .. })), "{status}");
        }
        for status in [301, 307, 400, 401, 404, 410] {
            assert!(matches!(judge(status, "x"), Err(Failure::Never { .. })), "{status}");
        }
        assert_eq!(server("https://hooks.example/services/SECRET"), "https://hooks.example");
    }

    #[test]
    fn a_program_s_name_calls_nobody_in_the_chat() {
        let mut bad = alert(1);
        bad.who.name = "/tmp/<!channel>```@all <https://x.example|y>".to_owned();
        bad.who.exe = Some(bad.who.name.clone());
        let text = slack(&notice(Occasion::Opened, bad), "h").to_string();
        assert!(!text.contains("<!") && !text.contains("@all") && !text.contains("<https"), "{text}");
        assert_eq!(text.matches("```").count(), 2, "{text}");
        let text = slack(&summary(1000), "h").to_string();
        assert!(text.contains("1000 alerts within") && text.contains("and 980 more"), "{text}");
    }

    #[test]
    fn an_empty_secret_signs_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("secret");
        std::fs::write(&file, " \n").unwrap();
        assert!(secret(&file).unwrap_err().to_string().ends_with("the file is empty"));
        std::fs::write(&file, "s3cret\n").unwrap();
        assert_eq!(secret(&file).unwrap(), b"s3cret");
    }
}
