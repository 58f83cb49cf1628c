use std::path::Path;

use super::*;
use crate::fakehost::xml::{self, Element};

struct Bare {
    file: Vec<u8>,
}

impl Host for Bare {
    fn kernel_state(&self, _zone: &str) -> Option<&'static str> {
        None
    }
    fn has_brand(&self, brand: &str) -> bool {
        matches!(brand, "lx" | "reddwarf" | "ipkg" | "lipkg" | "sparse")
    }
    fn verify_brand(&self, _document: &Element) -> Result<(), String> {
        Ok(())
    }
    fn read_file(&self, _path: &Path) -> std::io::Result<Vec<u8>> {
        Ok(self.file.clone())
    }
    fn write_file(&self, _path: &Path, _text: &str) -> std::io::Result<()> {
        Err(std::io::ErrorKind::PermissionDenied.into())
    }
    fn is_directory(&self, _path: &Path) -> bool {
        false
    }
}

fn run_file(zone: &str, file: &[u8], flavour: Flavour) -> (Reply, Option<Element>) {
    let root = tempfile::tempdir().unwrap();
    let store = ConfigStore::open(root.path()).unwrap();
    let host = Bare {
        file: file.to_vec(),
    };
    let args: Vec<String> = ["-z", zone, "-f", "FILE"].map(String::from).to_vec();
    let reply = run(&host, &store, flavour, &args, b"");
    let document = store.load(zone).unwrap();
    (reply, document)
}

/// Every recorded case: the exit status, whether a configuration is left, the configuration, and
/// the first lines of the messages.
#[test]
fn every_recorded_case_answers_as_the_real_zonecfg_did() {
    let recorded = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/illumos");
    let text = ["zonecfg.jsonl", "zonecfg-more.jsonl"]
        .map(|file| std::fs::read_to_string(recorded.join(file)).unwrap())
        .concat();
    let (mut cases, mut wrong) = (0, Vec::new());
    for line in text.lines() {
        let case: serde_json::Value = serde_json::from_str(line).unwrap();
        let name = case["name"].as_str().unwrap();
        let zone = case["zone"].as_str().unwrap();
        let file = case["file"].as_str().unwrap();
        for (variant, flavour) in [("omnios", Flavour::Omnios), ("gate", Flavour::Gate)] {
            let Some(expected) = case.get(variant) else {
                continue;
            };
            cases += 1;
            let (reply, document) = run_file(zone, file.as_bytes(), flavour);
            let mut differences = Vec::new();
            if i64::from(reply.code) != expected["exit"].as_i64().unwrap() {
                differences.push(format!("exit {} not {}", reply.code, expected["exit"]));
            }
            if document.is_some() != expected["saved"].as_bool().unwrap() {
                differences.push(format!("saved {}", document.is_some()));
            }
            if let Some(recorded) = expected["xml"].as_str() {
                let recorded = xml::parse(recorded).unwrap();
                if document.as_ref() != Some(&recorded) {
                    differences.push(format!(
                        "document\n{}\nnot\n{}",
                        document.map_or(String::new(), |d| d.to_text()),
                        recorded.to_text()
                    ));
                }
            }
            if let Some(shown) = expected["stdout"].as_str()
                && reply.stdout != shown.as_bytes()
            {
                let got = String::from_utf8_lossy(&reply.stdout);
                differences.push(format!("showed\n{got}not\n{shown}"));
            }
            let stderr = String::from_utf8_lossy(&reply.stderr)
                .replace("\r\n", "\n")
                .replace('\r', "\n");
            let mut lines = stderr.lines();
            for wanted in expected["stderr"].as_array().into_iter().flatten() {
                let wanted = wanted.as_str().unwrap();
                let got = lines.next().unwrap_or("<nothing>");
                if got != wanted {
                    differences.push(format!("said {got:?} not {wanted:?}"));
                }
            }
            if !differences.is_empty() {
                wrong.push(format!("{variant}: {name}: {}", differences.join("; ")));
            }
        }
    }
    println!("{cases} recorded answers, {} differ", wrong.len());
    assert!(cases > 1700, "only {cases} cases");
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
