//! Several API servers of one cluster behind no load balancer: one that dies costs no rotation.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use crate::support::daemon::Host;
use crate::support::servers::cluster;
use crate::support::until;

/// A way to the real API server that can be cut, as a dead process cuts it: connections reset, new ones refused.
struct Way {
    port: u16,
    alive: Arc<AtomicBool>,
    used: Arc<AtomicUsize>,
    open: Arc<Mutex<Vec<TcpStream>>>,
}

impl Way {
    fn new(to: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let way = Self { port, alive: Arc::new(AtomicBool::new(true)), used: Arc::default(), open: Arc::default() };
        let (alive, used, open) = (Arc::clone(&way.alive), Arc::clone(&way.used), Arc::clone(&way.open));
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                if !alive.load(Ordering::SeqCst) {
                    // The listener goes too: from here on connections are refused.
                    return;
                }
                used.fetch_add(1, Ordering::SeqCst);
                let server = TcpStream::connect(to).unwrap();
                let ends = [stream.try_clone().unwrap(), server.try_clone().unwrap()];
                open.lock().unwrap().extend(ends);
                pump(stream.try_clone().unwrap(), server.try_clone().unwrap());
                pump(server, stream);
            }
        });
        way
    }

    fn cut(&self) {
        self.alive.store(false, Ordering::SeqCst);
        for stream in self.open.lock().unwrap().drain(..) {
            let _ = stream.shutdown(Shutdown::Both);
        }
        // Wakes the listener, so that it goes.
        let _ = TcpStream::connect(("127.0.0.1", self.port));
    }

    fn used(&self) -> usize {
        self.used.load(Ordering::SeqCst)
    }
}

fn pump(mut from: TcpStream, mut to: TcpStream) {
    std::thread::spawn(move || {
        let mut bytes = [0; 16_384];
        while let Ok(count) = from.read(&mut bytes) {
            if count == 0 || to.write_all(&bytes[..count]).is_err() {
                break;
            }
        }
        let _ = to.shutdown(Shutdown::Both);
    });
}

#[test]
fn g2_a_dead_api_server_of_several_costs_no_rotation() {
    let kube = cluster().kube();
    let server: SocketAddr = kube.server.strip_prefix("https://").unwrap().parse().unwrap();
    let (one, two) = (Way::new(server), Way::new(server));
    let mut host = Host::new(&format!(
        "
clusters: {{prod: {{kubeconfig: {}, endpoints: ['https://127.0.0.1:{}', 'https://127.0.0.1:{}']}}}}
targets:
  - {{name: one, cluster: prod, serviceAccount: cicd/builder, duration: 1h, deliver: [{{file: {{path: HERE/out/one}}}}]}}
",
        kube.minter_kubeconfig.display(),
        one.port,
        two.port,
    ));
    host.start();
    until("it is delivered", 30, || host.records_of("rotated", "one").len() == 1);
    assert!(one.used() > 0 && two.used() == 0, "the first one is healthy, and asked");
    one.cut();
    let done = host.run(&["rotate", "one", "--timeout", "60s"]);
    assert_eq!(done.code, Some(0), "{done:?}");
    assert!(two.used() > 0);
    assert_eq!(host.records_of("rotated", "one").len(), 2);
    assert_eq!(host.records_of("rotated", "one")[1]["proof"], "online");
    assert_eq!(host.run(&["rotate", "one", "--timeout", "60s"]).code, Some(0));
    assert!(host.records_of("failed", "one").is_empty(), "a dead API server cost a rotation");
}
