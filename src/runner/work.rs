//! The kinds of work, each as one verb of the engine or a look at the disk.

use std::num::NonZeroUsize;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::time::Duration;

use crate::api::backup::{CompressionAlgorithm, CompressionSpec, LockPolicy, NonTransactional, RedoConsumer};
use crate::api::runner::{Answer, BackupWork, Login, RunnerState, Server, Survey, Work};
use crate::api::source::{EncryptedPages, TlsMode};
use crate::ops::options::{
    self, BackupOptions, Codec, ConnectOptions, Endpoint, SslMode, SslOptions, default_parallel,
};
use crate::ops::{self, Context, Error, ErrorKind};

use super::restore;

/// How long one server may take to say who it is.
const ANSWER_PATIENCE: Duration = Duration::from_secs(20);

/// Does the work.
pub(super) async fn run(context: &Context, work: Work) -> Result<RunnerState, Error> {
    match work {
        Work::Survey(survey) => ask_servers(context, survey).await,
        Work::Look { data_dir } => look(&data_dir),
        Work::Backup(work) => back_up(context, *work).await,
        Work::Restore(work) => restore::run(context, *work).await,
        Work::Ask { store, question } => {
            share_files(&store);
            let packed = ops::storage::answer(context, &store, question).await?;
            Ok(RunnerState::Answered { packed })
        }
    }
}

/// On a volume, runners of several users work with each other's files: by the group that owns the volume.
fn share_files(store: &str) {
    if store.starts_with("file:") {
        rustix::process::umask(rustix::fs::Mode::WOTH);
    }
}

async fn back_up(context: &Context, work: BackupWork) -> Result<RunnerState, Error> {
    share_files(&work.store);
    let options = backup_options(work)?;
    let report = ops::backup::run(context, options).await?;
    Ok(RunnerState::BackedUp { backup_id: report.id, warnings: report.warnings })
}

/// All at once: each answer is one row, and one dead server must not keep the others back.
async fn ask_servers(context: &Context, survey: Survey) -> Result<RunnerState, Error> {
    let asks = survey.servers.into_iter().map(|server| ask(context, server, &survey.login));
    let answers = futures::future::join_all(asks).await;
    context.check()?;
    Ok(RunnerState::Surveyed { answers })
}

async fn ask(context: &Context, server: Server, login: &Login) -> Answer {
    let pod = server.pod.clone();
    let asked = async { ops::role::run(context, connect_options(&server, login)?).await };
    match tokio::time::timeout(ANSWER_PATIENCE, asked).await {
        Ok(Ok(report)) => Answer { pod, primary: Some(report.primary), unfit: report.unfit },
        Ok(Err(error)) => {
            let causes = error.causes();
            let cause = causes.first().map_or_else(String::new, |cause| format!(": {cause}"));
            Answer { pod, primary: None, unfit: Some(format!("{error}{cause}")) }
        }
        Err(_) => Answer { pod, primary: None, unfit: Some("it did not answer in time".to_owned()) },
    }
}

fn look(data_dir: &str) -> Result<RunnerState, Error> {
    let found = std::fs::metadata(data_dir)
        .map_err(|error| Error::new(ErrorKind::LocalIo, format!("cannot look at {data_dir}")).caused_by(error))?;
    Ok(RunnerState::Looked { uid: found.uid(), gid: found.gid() })
}

fn connect_options(server: &Server, login: &Login) -> Result<ConnectOptions, Error> {
    let user = std::fs::read_to_string(&login.user_file).map_err(|error| {
        Error::new(ErrorKind::LocalIo, format!("cannot read the user's name from {}", login.user_file)).caused_by(error)
    })?;
    let endpoint = Endpoint::Tcp { host: server.host.clone(), port: server.port };
    let mut options = ConnectOptions::new(endpoint, user.trim_end_matches(['\r', '\n']));
    options.password_file = Some(PathBuf::from(&login.password_file));
    options.ssl = SslOptions {
        mode: match login.tls_mode {
            TlsMode::Disabled => SslMode::Disabled,
            TlsMode::Preferred => SslMode::Preferred,
            TlsMode::Required => SslMode::Required,
            TlsMode::VerifyCA => SslMode::VerifyCa,
            TlsMode::VerifyIdentity => SslMode::VerifyIdentity,
        },
        ca: login.ca_file.as_ref().map(PathBuf::from),
        cert: login.certificate_file.as_ref().map(PathBuf::from),
        key: login.key_file.as_ref().map(PathBuf::from),
        server_name: login.server_name.clone(),
    };
    Ok(options)
}

fn backup_options(work: BackupWork) -> Result<BackupOptions, Error> {
    // Without `..`: whatever the API can ask for reaches the engine, or does not compile.
    let BackupWork {
        backup_id,
        origin,
        store,
        server,
        login,
        data_dir,
        keyring_file,
        encryption_key_files,
        encrypted_pages,
        compression,
        lock,
        redo_consumer,
        throttle,
        parallelism,
        spool_dir,
        spool_bytes,
        allow_untested_server,
    } = work;
    let usage = |what: &str, error: Box<dyn std::error::Error + Send + Sync>| {
        Error::new(ErrorKind::Usage, format!("the request names no {what}")).caused_by(error)
    };
    let id: options::BackupId = backup_id.parse().map_err(|error| usage("backup id", Box::new(error)))?;
    let store = store.parse().map_err(|error| usage("store", Box::new(error)))?;
    let mut options = BackupOptions::new(store, connect_options(&server, &login)?);
    id.name().clone_into(&mut options.name);
    options.id = Some(id);
    options.origin = options::Origin {
        cluster_id: origin.cluster_id,
        namespace: Some(origin.namespace),
        schedule: origin.schedule,
        uid: Some(origin.uid),
    };
    options.datadir = Some(PathBuf::from(data_dir));
    options.keyring_file = keyring_file.map(PathBuf::from);
    options.encrypted_pages = match encrypted_pages {
        EncryptedPages::Verify => options::EncryptedPages::Verify,
        EncryptedPages::CopyUnverified => options::EncryptedPages::CopyUnverified,
    };
    options.compression = codec(&compression)?;
    options.encryption_key_files = encryption_key_files.into_iter().map(PathBuf::from).collect();
    options.parallel = parallelism
        .and_then(|threads| NonZeroUsize::new(usize::try_from(threads).ok()?))
        .unwrap_or_else(default_parallel);
    options.throttle = throttle;
    options.lock_policy = match lock.policy {
        LockPolicy::Full => options::LockPolicy::Full,
        LockPolicy::Short => options::LockPolicy::Short,
    };
    options.lock_timeout = seconds(lock.timeout_seconds);
    options.ddl_wait_budget = Some(seconds(lock.ddl_wait_budget_seconds)).filter(|budget| !budget.is_zero());
    options.non_transactional = match lock.non_transactional {
        NonTransactional::Include => options::NonTransactional::Include,
        NonTransactional::Refuse => options::NonTransactional::Refuse,
        NonTransactional::Skip => options::NonTransactional::Skip,
    };
    options.redo_consumer = match redo_consumer {
        RedoConsumer::Auto => options::RedoConsumer::Auto,
        RedoConsumer::Always => options::RedoConsumer::On,
        RedoConsumer::Never => options::RedoConsumer::Off,
    };
    options.spool_dir = PathBuf::from(spool_dir);
    options.spool_bytes = spool_bytes;
    options.allow_untested_server = allow_untested_server;
    Ok(options)
}

fn codec(compression: &CompressionSpec) -> Result<Codec, Error> {
    let text = match (compression.algorithm, compression.level) {
        (CompressionAlgorithm::Zstd, None) => "zstd".to_owned(),
        (CompressionAlgorithm::Zstd, Some(level)) => format!("zstd:{level}"),
        (CompressionAlgorithm::LZ4, _) => "lz4".to_owned(),
        (CompressionAlgorithm::None, _) => "none".to_owned(),
    };
    text.parse().map_err(|error| {
        Error::new(ErrorKind::Usage, "the request asks for a compression that is not there").caused_by(error)
    })
}

fn seconds(number: i64) -> Duration {
    Duration::from_secs(u64::try_from(number).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::backup::LockSpec;
    use crate::api::runner::Origin;

    fn login(dir: &std::path::Path) -> Login {
        let user = dir.join("user");
        std::fs::write(&user, "backup\n").unwrap();
        Login {
            user_file: user.to_string_lossy().into_owned(),
            password_file: "/p".into(),
            tls_mode: TlsMode::VerifyCA,
            ca_file: Some("/ca".into()),
            ..Login::default()
        }
    }

    #[test]
    fn a_request_becomes_the_engines_options() {
        let dir = tempfile::tempdir().unwrap();
        let work = BackupWork {
            backup_id: "shop-20260314T150926Z-1a2b3c4d".into(),
            origin: Origin {
                cluster_id: Some("c".into()),
                namespace: "shop".into(),
                schedule: Some("nightly".into()),
                uid: "u".into(),
            },
            store: "s3://bucket/prefix".into(),
            server: Server { pod: "shop-1".into(), host: "10.0.0.1".into(), port: 3307 },
            login: login(dir.path()),
            data_dir: "/var/lib/mysql".into(),
            keyring_file: Some("/k".into()),
            encryption_key_files: vec!["/e".into()],
            encrypted_pages: EncryptedPages::CopyUnverified,
            compression: CompressionSpec { algorithm: CompressionAlgorithm::Zstd, level: Some(7) },
            lock: LockSpec { timeout_seconds: 5, ddl_wait_budget_seconds: 0, ..LockSpec::default() },
            redo_consumer: RedoConsumer::Never,
            throttle: Some(1 << 20),
            parallelism: Some(3),
            spool_dir: "/spool".into(),
            spool_bytes: 77,
            allow_untested_server: true,
        };
        let options = backup_options(work).unwrap();
        assert_eq!(options.name, "shop");
        assert_eq!(options.id.unwrap().as_str(), "shop-20260314T150926Z-1a2b3c4d");
        assert_eq!(options.origin.schedule.as_deref(), Some("nightly"));
        assert_eq!(options.server.endpoint.to_string(), "10.0.0.1:3307");
        assert_eq!(options.server.user, "backup", "without the line feed of the file");
        assert_eq!(options.server.ssl.mode, SslMode::VerifyCa);
        assert_eq!(options.compression.to_string(), "zstd:7");
        assert_eq!(options.ddl_wait_budget, None, "0 means as long as it takes");
        assert_eq!(options.lock_timeout, Duration::from_secs(5));
        assert_eq!(options.redo_consumer, options::RedoConsumer::Off);
        assert_eq!((options.parallel.get(), options.spool_bytes, options.throttle), (3, 77, Some(1 << 20)));
        assert!(options.allow_untested_server);
    }

    #[test]
    fn a_look_says_whose_the_directory_is() {
        let dir = tempfile::tempdir().unwrap();
        let looked = look(dir.path().to_str().unwrap()).unwrap();
        let expected = std::fs::metadata(dir.path()).unwrap();
        assert_eq!(looked, RunnerState::Looked { uid: expected.uid(), gid: expected.gid() });
        assert_eq!(look("/does/not/exist").unwrap_err().kind, ErrorKind::LocalIo);
    }

    #[tokio::test]
    async fn a_server_that_is_not_there_is_an_answer_too() {
        let dir = tempfile::tempdir().unwrap();
        // Nobody listens on the port that was just given back.
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let server = Server { pod: "shop-0".into(), host: "127.0.0.1".into(), port };
        std::fs::write(dir.path().join("p"), "x").unwrap();
        let login = Login {
            tls_mode: TlsMode::Preferred,
            ca_file: None,
            password_file: dir.path().join("p").to_string_lossy().into_owned(),
            ..login(dir.path())
        };
        let survey = Survey { servers: vec![server], login };
        let RunnerState::Surveyed { answers } = ask_servers(&Context::silent(), survey).await.unwrap() else {
            panic!("no survey")
        };
        assert_eq!((answers[0].pod.as_str(), answers[0].primary), ("shop-0", None));
        assert!(answers[0].unfit.as_ref().unwrap().contains("connect"), "{answers:?}");
    }
}
