//! A way to a server that can be cut: bytes go through as they are, or nothing does.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

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

fn carry(state: &State, from: &mut TcpStream, to: &mut TcpStream) {
    let mut bytes = [0u8; 16_384];
    while let Ok(count) = from.read(&mut bytes) {
        while state.cut.load(Ordering::Relaxed) && !state.over.load(Ordering::Relaxed) {
            std::thread::sleep(Duration::from_millis(50));
        }
        if count == 0 || to.write_all(&bytes[..count]).is_err() {
            break;
        }
    }
    let _ = to.shutdown(Shutdown::Write);
}
