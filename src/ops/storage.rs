//! One question about a store, answered by a process that can reach it for one that cannot.
//!
//! Question and answer are documents of the store's own; nobody in between looks into them.

use serde_json::Value;

use crate::ops::context::Context;
use crate::ops::error::{Error, ErrorKind};
use crate::store::{Answer, Question, Repository, StoreSettings, StoreUrl, tell};

/// Answers a question about the store at a URL, as a text that can be handed over. What could not be done is an answer,
/// too; only a question that makes no sense fails.
pub async fn answer(ctx: &Context, url: &str, question: Value) -> Result<String, Error> {
    ctx.check()?;
    let usage = |what: &str, error: Box<dyn std::error::Error + Send + Sync>| {
        Error::new(ErrorKind::Usage, format!("the request names no {what}")).caused_by(error)
    };
    let question: Question = serde_json::from_value(question).map_err(|error| usage("question", Box::new(error)))?;
    // Whoever may write there may make the directory of a volume that is new, and those above it.
    let create = matches!(question, Question::Look { write: true });
    if let Some(directory) = url.strip_prefix("file://").filter(|_| create) {
        std::fs::create_dir_all(directory).map_err(|error| {
            Error::new(ErrorKind::LocalIo, format!("cannot make the directory {directory}")).caused_by(error)
        })?;
    }
    let url: StoreUrl = url.parse().map_err(|error| usage("store", Box::new(error)))?;
    let answered = async {
        match Repository::open_with(&url, StoreSettings::from_env(), create).await {
            Ok(repository) => repository.answer(question).await,
            Err(error) => Answer::Failed(tell(&error)),
        }
    };
    let answer = tokio::select! {
        answer = answered => answer,
        () = ctx.cancel.cancelled() => return Err(Error::cancelled()),
    };
    answer.pack().map_err(|error| Error::new(ErrorKind::Failed, "the answer cannot be handed over").caused_by(error))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    async fn ask(url: &str, question: Value) -> Answer {
        Answer::unpack(&answer(&Context::silent(), url, question).await.unwrap()).unwrap()
    }

    #[tokio::test]
    async fn a_new_volume_is_made_ready_and_asked() {
        let dir = tempfile::tempdir().unwrap();
        let url = format!("file://{}/volume/shop", dir.path().display());
        let Answer::Failed(told) = ask(&url, json!({"look": {"write": false}})).await else { panic!("it is there") };
        assert!(told.text.contains("shop"), "{told:?}");
        let Answer::Look(look) = ask(&url, json!({"look": {"write": true}})).await else { panic!("no look") };
        assert!(look.capabilities.list && look.capabilities.delete);
        assert_eq!(look.content.unwrap().complete, []);
        let id = "nightly-20260314T150926Z-1a2b3c4d";
        assert_eq!(ask(&url, json!({"state": {"id": id}})).await, Answer::State(None));
        let Answer::Failed(told) = ask(&url, json!({"manifest": {"id": id}})).await else { panic!("a manifest") };
        assert_eq!(told.kind, crate::store::ToldKind::NotFound, "{told:?}");
        let error = answer(&Context::silent(), &url, json!({"riddle": {}})).await.unwrap_err();
        assert_eq!(error.kind, ErrorKind::Usage);
    }
}
