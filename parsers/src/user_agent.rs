//! Browser and system from a user agent (`user_agent: parse` in a pack).
//!
//! A small table, looked through in order: what is particular before what calls itself like it
//! (Edge says that it is Chrome, Chrome that it is Safari). What the table does not know gives
//! nothing; the user agent itself stays whole in `source.user_agent`. A program that is no browser
//! (`curl/8.5.0`, `python-requests/2.31`) is named in the browser's place.
//!
//! **Limits.** The first [`WINDOW_BYTES`] are looked at; a version is digits and dots, at most
//! [`VERSION_BYTES`] long.

use custody_event::{Draft, Field};

const WINDOW_BYTES: usize = 512;
const VERSION_BYTES: usize = 24;

/// What stands before a version, and the browser's name.
const BROWSERS: &[(&str, &str)] = &[
    ("EdgA/", "Edge"),
    ("EdgiOS/", "Edge"),
    ("Edg/", "Edge"),
    ("Edge/", "Edge"),
    ("OPR/", "Opera"),
    ("Opera/", "Opera"),
    ("Vivaldi/", "Vivaldi"),
    ("SamsungBrowser/", "Samsung Internet"),
    ("YaBrowser/", "Yandex"),
    ("DuckDuckGo/", "DuckDuckGo"),
    ("FxiOS/", "Firefox"),
    ("Firefox/", "Firefox"),
    ("CriOS/", "Chrome"),
    ("HeadlessChrome/", "Headless Chrome"),
    ("Electron/", "Electron"),
    ("Chrome/", "Chrome"),
    ("Chromium/", "Chromium"),
    ("MSIE ", "Internet Explorer"),
    ("Trident/", "Internet Explorer"),
    ("Thunderbird/", "Thunderbird"),
];

/// Programs that begin with their own name.
const PROGRAMS: &[&str] = &[
    "curl",
    "Wget",
    "python-requests",
    "Python-urllib",
    "aiohttp",
    "okhttp",
    "Go-http-client",
    "PostmanRuntime",
    "axios",
    "node-fetch",
    "Apache-HttpClient",
    "Java",
    "aws-cli",
    "aws-sdk-go",
    "aws-sdk-java",
    "Boto3",
    "kubectl",
    "Terraform",
    "git",
    "Slackbot",
    "insomnia",
    "libwww-perl",
    "PowerShell",
    "HTTPie",
    "GitHub-Hookshot",
];

/// Names of Windows by its kernel.
const WINDOWS: &[(&str, &str)] = &[
    ("10.0", "Windows 10"),
    ("6.3", "Windows 8.1"),
    ("6.2", "Windows 8"),
    ("6.1", "Windows 7"),
    ("6.0", "Windows Vista"),
    ("5.1", "Windows XP"),
];

/// Fills the device's browser and system where the event has a user agent and does not say them.
pub(crate) fn fill(draft: &mut Draft<'_>) {
    let Some(agent) = draft.text_of(Field::SourceUserAgent) else { return };
    let agent = &agent[..agent.floor_char_boundary(WINDOW_BYTES)];
    let (browser, os) = (browser(agent), os(agent));
    if let Some(browser) = browser.filter(|_| !draft.has(Field::DeviceBrowser)) {
        draft.text(Field::DeviceBrowser, browser);
    }
    if let Some(os) = os.filter(|_| !draft.has(Field::DeviceOs)) {
        draft.text(Field::DeviceOs, os);
    }
}

/// The browser (or program) and its version.
fn browser(agent: &str) -> Option<String> {
    for (mark, name) in BROWSERS {
        if let Some((_, after)) = agent.split_once(mark) {
            let after = match *mark {
                "Trident/" => agent.split_once("rv:").map_or("", |(_, after)| after),
                // Old Opera keeps its number for another place.
                "Opera/" => agent.split_once("Version/").map_or(after, |(_, after)| after),
                _ => after,
            };
            return Some(with(name, version(after)));
        }
    }
    if let Some((_, after)) = agent.split_once("Version/")
        && agent.contains("Safari/")
    {
        return Some(with("Safari", version(after)));
    }
    let name = PROGRAMS.iter().find(|name| agent.starts_with(**name))?;
    let after = agent[name.len()..].strip_prefix('/').unwrap_or("");
    Some(with(name, version(after)))
}

/// The system and its version.
fn os(agent: &str) -> Option<String> {
    if let Some((_, after)) = agent.split_once("Windows NT ") {
        let kernel = version(after);
        let known = WINDOWS.iter().find(|(number, _)| *number == kernel);
        return Some(known.map_or("Windows", |(_, name)| name).to_owned());
    }
    for device in ["iPhone", "iPad"] {
        if let Some((_, after)) = agent.split_once(device) {
            let number = after.split_once("OS ").map_or("", |(_, after)| after);
            let name = if device == "iPad" { "iPadOS" } else { "iOS" };
            return Some(with(name, &version_of_underscores(number)));
        }
    }
    if let Some((_, after)) = agent.split_once("Mac OS X") {
        return Some(with("macOS", &version_of_underscores(after.trim_start())));
    }
    if let Some((_, after)) = agent.split_once("Android") {
        return Some(with("Android", version(after.trim_start())));
    }
    let plain = [
        ("CrOS", "ChromeOS"),
        ("FreeBSD", "FreeBSD"),
        ("OpenBSD", "OpenBSD"),
        ("Windows", "Windows"),
        ("Linux", "Linux"),
    ];
    plain.iter().find(|(mark, _)| agent.contains(mark)).map(|(_, name)| (*name).to_owned())
}

fn with(name: &str, version: &str) -> String {
    if version.is_empty() { name.to_owned() } else { format!("{name} {version}") }
}

/// Digits and dots at the start.
fn version(text: &str) -> &str {
    let end = text.bytes().take(VERSION_BYTES).take_while(|b| b.is_ascii_digit() || *b == b'.');
    text[..end.count()].trim_end_matches('.')
}

/// The same, of the form `17_2_1`.
fn version_of_underscores(text: &str) -> String {
    let end = text.bytes().take(VERSION_BYTES);
    let end = end.take_while(|b| b.is_ascii_digit() || matches!(b, b'.' | b'_')).count();
    text[..end].replace('_', ".").trim_end_matches('.').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn who_calls_itself_like_another_is_told_apart() {
        for (agent, wanted_browser, wanted_os) in [
            (
                "Mozilla/5.0 (X11; Linux x86_64; rv:120.0) Gecko/20100101 Firefox/120.0",
                "Firefox 120.0",
                "Linux",
            ),
            (
                "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/120.0.0.0 Safari/537.36",
                "Chrome 120.0.0.0",
                "Windows 10",
            ),
            (
                "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/120.0.0.0 Safari/537.36 Edg/120.0.2210.91",
                "Edge 120.0.2210.91",
                "Windows 10",
            ),
            (
                "Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/17.2 Safari/605.1.15",
                "Safari 17.2",
                "macOS 10.15.7",
            ),
            (
                "Mozilla/5.0 (iPhone; CPU iPhone OS 17_2_1 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/17.2 Mobile/15E148 Safari/604.1",
                "Safari 17.2",
                "iOS 17.2.1",
            ),
            (
                "Mozilla/5.0 (iPad; CPU OS 16_6 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) CriOS/119.0.6045.169 Mobile/15E148 Safari/604.1",
                "Chrome 119.0.6045.169",
                "iPadOS 16.6",
            ),
            (
                "Mozilla/5.0 (Linux; Android 14; Pixel 8) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/120.0.0.0 Mobile Safari/537.36",
                "Chrome 120.0.0.0",
                "Android 14",
            ),
            (
                "Mozilla/5.0 (Windows NT 6.1; WOW64; Trident/7.0; rv:11.0) like Gecko",
                "Internet Explorer 11.0",
                "Windows 7",
            ),
            (
                "Mozilla/5.0 (X11; CrOS x86_64 14541.0.0) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/119.0.0.0 Safari/537.36 OPR/105.0.0.0",
                "Opera 105.0.0.0",
                "ChromeOS",
            ),
            ("curl/8.5.0", "curl 8.5.0", ""),
            ("python-requests/2.31.0", "python-requests 2.31.0", ""),
            ("Java/17.0.1", "Java 17.0.1", ""),
            ("something of our own", "", ""),
            ("", "", ""),
        ] {
            assert_eq!(browser(agent).unwrap_or_default(), wanted_browser, "{agent}");
            assert_eq!(os(agent).unwrap_or_default(), wanted_os, "{agent}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_looked_at(text in "(Windows NT |Mac OS X|Version/|Android|iPad|OS |rv:|Trident/|Chrome/|[0-9_.é;]{0,5}){0,12}") {
            let mut draft = Draft::new();
            draft.text(Field::SourceUserAgent, text);
            fill(&mut draft);
        }
    }
}
