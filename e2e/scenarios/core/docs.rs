//! What the documentation tells people to apply: a real API server takes all of it.

use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result, ensure};

use crate::harness::cluster::parse;
use crate::harness::{say, scenario};

/// The YAML of Stillframe's own kinds in a page: here-documents and fenced blocks.
fn manifests(page: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut block: Option<(String, String)> = None;
    for line in page.lines() {
        let text = line.trim();
        match &mut block {
            Some((end, yaml)) if text == end => {
                found.push(std::mem::take(yaml));
                block = None;
            }
            Some((_, yaml)) => {
                // Blocks inside of lists are indented as a whole.
                yaml.push_str(line);
                yaml.push('\n');
            }
            None if text.ends_with("<<'YAML'") => block = Some(("YAML".to_owned(), String::new())),
            None if text == "```yaml" => block = Some(("```".to_owned(), String::new())),
            None => {}
        }
    }
    found.retain(|yaml| yaml.contains("apiVersion: stillframe.dev/") && yaml.contains("metadata:"));
    found
}

#[tokio::test(flavor = "multi_thread")]
async fn the_api_server_takes_what_the_documentation_says() -> Result<()> {
    scenario("docs", |space| async move {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let mut pages = vec![root.join("README.md")];
        for entry in fs::read_dir(root.join("docs"))? {
            pages.push(entry?.path());
        }
        let mut seen = 0;
        for page in pages.iter().filter(|path| path.extension().is_some_and(|ext| ext == "md")) {
            for yaml in manifests(&fs::read_to_string(page)?) {
                parse(&yaml)
                    .and_then(|objects| objects.first().map(|_| ()).context("empty"))
                    .with_context(|| page.display().to_string())?;
                space
                    .cluster
                    .apply(&space.name, &yaml, "reader", true)
                    .await
                    .with_context(|| format!("{}:\n{yaml}", page.display()))?;
                seen += 1;
            }
        }
        ensure!(seen >= 5, "only {seen} manifests were found in the documentation");
        say(format!("{seen} manifests of the documentation are accepted"));
        Ok(())
    })
    .await
}
