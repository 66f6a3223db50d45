//! The keys of a repository's objects. Nobody else joins keys.
//!
//! ```text
//!   <prefix>/stillframe-repository.json      whose prefix this is; created once, never changed
//!   <prefix>/stillframe-capabilities.json    what the store allows, as last seen
//!   <prefix>/stillframe-probe                written and deleted by each probe
//!   <prefix>/stillframe-clock                written to learn the store's time
//!   <prefix>/backups/<id>/manifest.json      the commit; or a tombstone, so that nothing else can be committed
//!                        /tombstone.json     beside a commit: being deleted
//!                        /marks.json         pinned, wanted until
//!                        /lease.json         a run is at work
//!                        /keys/<attempt>/<key id>.json   the data key, wrapped for one recipient
//!                        /keys/<key id>.json             likewise, of backups before 0.1
//!                        /data/<attempt>/<object>
//! ```

use object_store::path::Path;

use crate::archive::id::{AttemptId, BackupId};

const BACKUPS: &str = "backups";
const DATA: &str = "data";
const MANIFEST: &str = "manifest.json";
const TOMBSTONE: &str = "tombstone.json";
const LEASE: &str = "lease.json";
const MARKS: &str = "marks.json";

/// Makes keys below one prefix.
#[derive(Debug, Clone)]
pub(super) struct Layout {
    base: Path,
}

impl Layout {
    pub(super) fn new(base: Path) -> Self {
        Self { base }
    }

    pub(super) fn base(&self) -> &Path {
        &self.base
    }

    pub(super) fn repository(&self) -> Path {
        self.at("stillframe-repository.json")
    }

    pub(super) fn capabilities(&self) -> Path {
        self.at("stillframe-capabilities.json")
    }

    pub(super) fn probe(&self) -> Path {
        self.at("stillframe-probe")
    }

    pub(super) fn clock(&self) -> Path {
        self.at("stillframe-clock")
    }

    pub(super) fn backups(&self) -> Path {
        self.at(BACKUPS)
    }

    pub(super) fn backup(&self, id: &BackupId) -> Path {
        self.backups().join(id.as_str())
    }

    pub(super) fn manifest(&self, id: &BackupId) -> Path {
        self.backup(id).join(MANIFEST)
    }

    pub(super) fn tombstone(&self, id: &BackupId) -> Path {
        self.backup(id).join(TOMBSTONE)
    }

    pub(super) fn lease(&self, id: &BackupId) -> Path {
        self.backup(id).join(LEASE)
    }

    pub(super) fn marks(&self, id: &BackupId) -> Path {
        self.backup(id).join(MARKS)
    }

    pub(super) fn keys(&self, id: &BackupId) -> Path {
        self.backup(id).join("keys")
    }

    pub(super) fn key(&self, id: &BackupId, attempt: &AttemptId, key_id: &str) -> Path {
        self.keys(id).join(attempt.as_str()).join(format!("{key_id}.json"))
    }

    /// Where it was before each attempt had its own.
    pub(super) fn old_key(&self, id: &BackupId, key_id: &str) -> Path {
        self.keys(id).join(format!("{key_id}.json"))
    }

    pub(super) fn data(&self, id: &BackupId) -> Path {
        self.backup(id).join(DATA)
    }

    pub(super) fn attempt(&self, id: &BackupId, attempt: &AttemptId) -> Path {
        self.data(id).join(attempt.as_str())
    }

    pub(super) fn object(&self, id: &BackupId, attempt: &AttemptId, name: &str) -> Path {
        self.attempt(id, attempt).join(name)
    }

    fn at(&self, name: &str) -> Path {
        self.base.clone().join(name)
    }
}

/// What lies directly in a backup's folder.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Member {
    Manifest,
    Tombstone,
    Lease,
    Marks,
    Other,
}

impl Member {
    pub(super) fn of(key: &Path) -> Self {
        match key.filename() {
            Some(MANIFEST) => Self::Manifest,
            Some(TOMBSTONE) => Self::Tombstone,
            Some(LEASE) => Self::Lease,
            Some(MARKS) => Self::Marks,
            _ => Self::Other,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys() {
        let layout = Layout::new(Path::from("a/b"));
        let id: BackupId = "n.x-20260314T150926Z-1a2b3c4d".parse().unwrap();
        let attempt: AttemptId = "0123456789abcdef".parse().unwrap();
        let folder = "a/b/backups/n.x-20260314T150926Z-1a2b3c4d";
        assert_eq!(layout.manifest(&id).as_ref(), format!("{folder}/manifest.json"));
        assert_eq!(layout.key(&id, &attempt, "00ff").as_ref(), format!("{folder}/keys/0123456789abcdef/00ff.json"));
        assert_eq!(layout.old_key(&id, "00ff").as_ref(), format!("{folder}/keys/00ff.json"));
        let object = layout.object(&id, &attempt, "pack-000001");
        assert_eq!(object.as_ref(), format!("{folder}/data/0123456789abcdef/pack-000001"));
        assert_eq!(Layout::new(Path::default()).repository().as_ref(), "stillframe-repository.json");
    }

    #[test]
    fn a_name_cannot_leave_its_folder() {
        let layout = Layout::new(Path::default());
        let id: BackupId = "n-20260314T150926Z-1a2b3c4d".parse().unwrap();
        let key = layout.object(&id, &AttemptId::generate(), "../../x");
        assert!(key.as_ref().starts_with(layout.data(&id).as_ref()), "{key}");
        assert_eq!(key.parts().count(), layout.data(&id).parts().count() + 2, "{key}");
    }

    #[test]
    fn members() {
        let layout = Layout::new(Path::default());
        let id: BackupId = "n-20260314T150926Z-1a2b3c4d".parse().unwrap();
        assert_eq!(Member::of(&layout.manifest(&id)), Member::Manifest);
        assert_eq!(Member::of(&layout.tombstone(&id)), Member::Tombstone);
        assert_eq!(Member::of(&layout.lease(&id)), Member::Lease);
        assert_eq!(Member::of(&layout.marks(&id)), Member::Marks);
        assert_eq!(Member::of(&layout.keys(&id)), Member::Other);
    }
}
