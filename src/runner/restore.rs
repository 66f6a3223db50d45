//! A backup brought back into the volume that is mounted here.

use std::num::NonZeroUsize;
use std::path::PathBuf;

use crate::api::restore::Recovery;
use crate::api::runner::{AccountFile, POD_UID_VARIABLE, RestoreWork, RestoredData, RunnerState};
use crate::ops::options::{self, RestoreOptions};
use crate::ops::{self, Context, Error, ErrorKind};

/// Does it, and tells what a server on it must know.
pub(super) async fn run(context: &Context, work: RestoreWork) -> Result<RunnerState, Error> {
    let report = ops::restore::run(context, restore_options(work)?).await?;
    Ok(RunnerState::Restored(RestoredData {
        backup_id: report.id,
        pod_uid: std::env::var(POD_UID_VARIABLE).unwrap_or_default(),
        bytes: report.bytes.written,
        settings: report.settings,
        isolation: report.isolation,
        accounts: report.accounts,
        warnings: report.warnings,
    }))
}

fn restore_options(work: RestoreWork) -> Result<RestoreOptions, Error> {
    // Without `..`: whatever the API can ask for reaches the engine, or does not compile.
    let RestoreWork {
        backup_id,
        store,
        data_dir,
        encryption_key_files,
        keyring_file,
        recovery,
        keep_replication,
        accounts,
        overwrite_incomplete,
        overwrite,
        receipt,
        parallelism,
    } = work;
    let store =
        store.parse().map_err(|error| Error::new(ErrorKind::Usage, "the request names no store").caused_by(error))?;
    let mut options = RestoreOptions::new(store, backup_id, data_dir);
    options.encryption_key_files = encryption_key_files.into_iter().map(PathBuf::from).collect();
    options.keyring_file = keyring_file.map(PathBuf::from);
    options.recovery = match recovery {
        Some(Recovery::Server) => options::Recovery::Server,
        Some(Recovery::Native) => options::Recovery::Native,
        None => options.recovery,
    };
    // A claim is one volume: there is no other place that would outlive the pod.
    options.external_files = options::ExternalFiles::Inside;
    options.keep_replication = keep_replication;
    options.account_passwords = accounts.into_iter().map(account_password).collect();
    options.overwrite_incomplete = overwrite_incomplete;
    options.overwrite = overwrite;
    options.receipt = receipt;
    if let Some(threads) = parallelism.and_then(|threads| NonZeroUsize::new(usize::try_from(threads).ok()?)) {
        options.parallel = threads;
    }
    Ok(options)
}

fn account_password(account: AccountFile) -> options::AccountPassword {
    let AccountFile { user, host, password_file } = account;
    options::AccountPassword { user, host, password_file: PathBuf::from(password_file) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_becomes_the_engines_options() {
        let work = RestoreWork {
            backup_id: "shop-20260314T150926Z-1a2b3c4d".into(),
            store: "s3://bucket/prefix".into(),
            data_dir: "/restore/mysql".into(),
            encryption_key_files: vec!["/e".into()],
            keyring_file: Some("/k".into()),
            recovery: None,
            keep_replication: true,
            accounts: vec![AccountFile { user: "app".into(), host: Some("%".into()), password_file: "/p".into() }],
            overwrite_incomplete: true,
            overwrite: false,
            receipt: Some("uid".into()),
            parallelism: Some(3),
        };
        let usual = RestoreOptions::new("s3://bucket/prefix".parse().unwrap(), "b", "/d");
        let options = restore_options(work.clone()).unwrap();
        assert_eq!(options.backup, "shop-20260314T150926Z-1a2b3c4d");
        assert_eq!(options.datadir, PathBuf::from("/restore/mysql"));
        assert_eq!(options.recovery, usual.recovery, "the engine's own choice");
        assert_eq!(options.external_files, options::ExternalFiles::Inside);
        assert_eq!(options.parallel.get(), 3);
        assert_eq!(options.receipt.as_deref(), Some("uid"));
        let account = &options.account_passwords[0];
        assert_eq!((account.to_string().as_str(), account.password_file.to_str()), ("'app'@'%'", Some("/p")));
        assert!(options.keep_replication && options.overwrite_incomplete && !options.overwrite);
        assert_eq!(options.encryption_key_files, [PathBuf::from("/e")]);
        assert_eq!(options.keyring_file, Some(PathBuf::from("/k")));

        let native = RestoreWork { recovery: Some(Recovery::Native), ..work.clone() };
        assert_eq!(restore_options(native).unwrap().recovery, options::Recovery::Native);
        let nowhere = RestoreWork { store: "nowhere".into(), ..work };
        assert_eq!(restore_options(nowhere).unwrap_err().kind, ErrorKind::Usage);
    }
}
