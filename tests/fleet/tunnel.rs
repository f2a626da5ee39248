//! A way to a server that can be cut: bytes go through as they are, or nothing does.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::channel;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// A listener on this host, and what it leads to.
pub struct Tunnel {
    port: u16,
    state: Arc<State>,
}

#[derive(Default)]
struct State {
    cut: AtomicBool,
    over: AtomicBool,
    connections: AtomicU64,
    /// How long each piece is under way, ms; those behind it do not wait for it.
    under_way: AtomicU64,
    open: Mutex<Vec<TcpStream>>,
}

impl Tunnel {
    /// A tunnel to `HOST:PORT`.
    pub fn to(server: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let (port, state, server) = (listener.local_addr().unwrap().port(), Arc::new(State::default()), server.to_owned());
        let own = Arc::clone(&state);
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                if own.over.load(Ordering::Relaxed) {
                    return;
                }
                let Ok(near) = stream else { continue };
                own.connections.fetch_add(1, Ordering::Relaxed);
                if own.cut.load(Ordering::Relaxed) {
                    // It hears nothing, as behind a firewall.
                    own.open.lock().unwrap().push(near);
                    continue;
                }
                let Ok(far) = TcpStream::connect(&server) else { continue };
                own.open.lock().unwrap().extend([near.try_clone().unwrap(), far.try_clone().unwrap()]);
                for (mut from, mut to) in [(near.try_clone().unwrap(), far.try_clone().unwrap()), (far, near)] {
                    let own = Arc::clone(&own);
                    std::thread::spawn(move || carry(&own, &mut from, &mut to));
                }
            }
        });
        Self { port, state }
    }

    /// Where it listens, over TLS.
    pub fn url(&self) -> String {
        format!("https://127.0.0.1:{}", self.port)
    }

    /// From now on each piece is under way for that long.
    pub fn slow(&self, pause: Duration) {
        self.state.under_way.store(u64::try_from(pause.as_millis()).unwrap(), Ordering::Relaxed);
    }

    /// Nothing goes through any more, and no connection is told so; or it does again, on new connections.
    pub fn cut(&self, cut: bool) {
        self.state.cut.store(cut, Ordering::Relaxed);
        if !cut {
            self.state.open.lock().unwrap().drain(..).for_each(|stream| drop(stream.shutdown(Shutdown::Both)));
        }
    }
}

impl Drop for Tunnel {
    fn drop(&mut self) {
        self.state.over.store(true, Ordering::Relaxed);
        self.cut(false);
        drop(TcpStream::connect(("127.0.0.1", self.port)));
    }
}

fn carry(state: &Arc<State>, from: &mut TcpStream, to: &mut TcpStream) {
    let (on_its_way, pieces) = channel::<(Instant, Vec<u8>)>();
    let (mut to, state) = (to.try_clone().unwrap(), Arc::clone(state));
    let arrives = Arc::clone(&state);
    std::thread::spawn(move || {
        for (due, bytes) in pieces {
            std::thread::sleep(due.saturating_duration_since(Instant::now()));
            while arrives.cut.load(Ordering::Relaxed) && !arrives.over.load(Ordering::Relaxed) {
                std::thread::sleep(Duration::from_millis(50));
            }
            if to.write_all(&bytes).is_err() {
                break;
            }
        }
        let _ = to.shutdown(Shutdown::Write);
    });
    let mut bytes = [0u8; 16_384];
    while let Ok(count) = from.read(&mut bytes) {
        let due = Instant::now() + Duration::from_millis(state.under_way.load(Ordering::Relaxed));
        if count == 0 || on_its_way.send((due, bytes[..count].to_vec())).is_err() {
            break;
        }
    }
}
