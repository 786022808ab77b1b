//! Disks that are full, and have room again.

use std::{
    fs::{self, File},
    io::{self, Write},
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use roost::app::Backend;
use tempfile::TempDir;
use tonic::Code;

use crate::server::{DEADLINE, Roost, post};

#[tokio::test(flavor = "multi_thread")]
async fn nearly_full_disk_refuses_writes_until_there_is_room() {
    let Some(disk) = SmallDisk::mount(192) else { return };
    let roost = disk.start(16 << 20).await;
    roost.follow(1, 7).await;
    let before = roost.publish(post(7, "before")).await;
    roost.delivered().await;
    disk.fill_up_to(12 << 20);
    let refused = until_refused(&roost).await;
    assert_eq!(refused.code(), Code::ResourceExhausted, "{refused:?}");
    assert!(refused.message().contains("--disk-reserve"), "{refused:?}");
    assert!(refused.message().contains(disk.path().to_str().unwrap()), "{refused:?}");
    let (status, readiness) = roost.get("/readyz").await;
    assert!(status == 200 && readiness.contains("--disk-reserve"), "{readiness}");
    assert!(roost.home(1).await.post_ids.contains(&before));
    disk.empty();
    let after = until_published(&roost).await;
    roost.delivered().await;
    assert!(roost.home(1).await.post_ids.contains(&after));
    roost.stop().await;
}

/// Another program takes the last byte, faster than the reserve is looked at.
#[tokio::test(flavor = "multi_thread")]
async fn full_disk_loses_nothing_and_server_goes_on_by_itself() {
    let Some(disk) = SmallDisk::mount(192) else { return };
    let roost = disk.start(0).await;
    roost.follow(1, 7).await;
    let mut acknowledged = Vec::new();
    for round in 0..3 {
        acknowledged.push(roost.publish(post(7, &format!("before {round}"))).await);
        roost.delivered().await;
        disk.fill_up_to(0);
        // Some may find room in what is allotted already.
        let refused = loop {
            match roost.try_publish(post(7, &"x".repeat(140))).await {
                Ok(id) => acknowledged.push(id),
                Err(refused) => break refused,
            }
        };
        assert_eq!(refused.code(), Code::Unavailable, "{refused:?}");
        assert!(!roost.home(1).await.post_ids.is_empty(), "reads go on");
        disk.empty();
        acknowledged.push(until_published(&roost).await);
        roost.delivered().await;
    }
    let read = |mut ids: Vec<u64>| {
        ids.sort_unstable();
        ids
    };
    acknowledged.sort_unstable();
    let is_there = |ids: &[u64]| acknowledged.iter().all(|id| ids.contains(id));
    assert!(is_there(&read(roost.home(1).await.post_ids)));
    let roost = roost.restart().await;
    assert!(is_there(&read(roost.author(7).await.post_ids)));
    assert!(is_there(&read(roost.home(1).await.post_ids)));
    roost.stop().await;
}

async fn until_refused(roost: &Roost) -> tonic::Status {
    let begun = Instant::now();
    loop {
        match roost.try_publish(post(7, "x")).await {
            Err(refused) => return refused,
            Ok(_) => assert!(begun.elapsed() < DEADLINE, "nothing is refused"),
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

async fn until_published(roost: &Roost) -> u64 {
    let begun = Instant::now();
    loop {
        match roost.try_publish(post(7, "there is room again")).await {
            Ok(id) => return id,
            Err(refused) => assert!(begun.elapsed() < DEADLINE, "{refused:?}"),
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// A file system of its own in memory, unmounted when this is dropped.
struct SmallDisk(TempDir);

impl SmallDisk {
    /// `None`, with a word, where this user may not mount, or the test is not of this backend.
    fn mount(mib: u32) -> Option<Self> {
        if std::env::var("ROOST_TEST_BACKEND").is_ok_and(|backend| backend != "embedded") {
            return None;
        }
        let dir = TempDir::new().expect("a directory");
        let mount = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &format!("size={mib}m"), "roost-test"])
            .arg(dir.path())
            .stderr(Stdio::null())
            .status();
        if !mount.is_ok_and(|status| status.success()) {
            eprintln!("skipped: only root may mount a small disk");
            return None;
        }
        Some(Self(dir))
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    async fn start(&self, disk_reserve_bytes: u64) -> Roost {
        let data_dir = self.path().join("data");
        Roost::start_with(|settings| {
            settings.backend = Backend::Embedded { data_dir, partitions: Some(2) };
            settings.disk_reserve_bytes = disk_reserve_bytes;
            settings.metrics_listen = Some(SocketAddr::from(([127, 0, 0, 1], 0)));
        })
        .await
    }

    fn filler(&self) -> PathBuf {
        self.path().join("filler")
    }

    /// Takes all that is free but so many bytes.
    fn fill_up_to(&self, left: u64) {
        let mut file = File::create(self.filler()).expect("a file");
        let piece = vec![0; 64 << 10];
        loop {
            if roost::free_space::available(self.path()).expect("a size") <= left {
                return;
            }
            match file.write(&piece) {
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::StorageFull => return,
                Err(error) => panic!("{error}"),
            }
        }
    }

    fn empty(&self) {
        fs::remove_file(self.filler()).expect("removed");
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // Lazily: files of a test that failed may be open.
        let _ = Command::new("umount").arg("-l").arg(self.path()).status();
    }
}
