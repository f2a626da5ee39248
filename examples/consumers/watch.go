// Asks the API server who it is, again and again, with a token file that is rotated meanwhile.
//
//	go run watch.go SERVER CA_FILE TOKEN_FILE [SECONDS_BETWEEN]
//
// For programs that cannot read the file for each request. What to copy from here is tokenFile: it watches the
// folder, since a rotation puts a new file under the old name and a watch of the file itself would stay with the
// old one; and it reads again every minute all the same, since a watch can be lost (a folder made anew, an overflow).
// Only the standard library, and Linux.
package main

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"io"
	"log"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"time"
)

// tokenFile holds the newest token that its file had; every request takes it from here.
type tokenFile struct {
	path  string
	token atomic.Value
	next  http.RoundTripper
}

func open(path string, next http.RoundTripper) (*tokenFile, error) {
	t := &tokenFile{path: path, next: next}
	// First the watch, then the first reading: what changes in between is seen by one of the two.
	changes, err := watch(filepath.Dir(path))
	if err != nil {
		return nil, err
	}
	if err := t.read(); err != nil {
		return nil, err
	}
	go func() {
		for minute := time.Tick(time.Minute); ; {
			select {
			case <-changes:
			case <-minute:
			}
			// The last token stays in use when a reading fails: it is good until its end.
			if err := t.read(); err != nil {
				log.Print(err)
			}
		}
	}()
	return t, nil
}

func (t *tokenFile) read() error {
	text, err := os.ReadFile(t.path)
	if err != nil {
		return err
	}
	token := strings.TrimSpace(string(text))
	if token == "" {
		return fmt.Errorf("%s is empty", t.path)
	}
	t.token.Store(token)
	return nil
}

// RoundTrip sends a request with the token; one that is refused is sent again, once, with what the file has now.
func (t *tokenFile) RoundTrip(request *http.Request) (*http.Response, error) {
	send := func() (*http.Response, error) {
		copied := request.Clone(request.Context())
		if request.GetBody != nil {
			body, err := request.GetBody()
			if err != nil {
				return nil, err
			}
			copied.Body = body
		}
		copied.Header.Set("Authorization", "Bearer "+t.token.Load().(string))
		return t.next.RoundTrip(copied)
	}
	response, err := send()
	again := request.Body == nil || request.GetBody != nil
	if err != nil || response.StatusCode != http.StatusUnauthorized || !again || t.read() != nil {
		return response, err
	}
	_, _ = io.Copy(io.Discard, response.Body)
	response.Body.Close()
	return send()
}

// watch sends a signal when files of the folder were put in place.
func watch(folder string) (<-chan struct{}, error) {
	notify, err := syscall.InotifyInit1(syscall.IN_CLOEXEC)
	if err != nil {
		return nil, err
	}
	const placed = syscall.IN_MOVED_TO | syscall.IN_CLOSE_WRITE | syscall.IN_CREATE
	if _, err := syscall.InotifyAddWatch(notify, folder, placed); err != nil {
		return nil, fmt.Errorf("%s: %w", folder, err)
	}
	changes := make(chan struct{}, 1)
	go func() {
		events := make([]byte, 64<<10)
		for {
			if _, err := syscall.Read(notify, events); err == syscall.EINTR {
				continue
			} else if err != nil {
				log.Print(err)
				return
			}
			// What changed does not matter: the file is read again.
			select {
			case changes <- struct{}{}:
			default:
			}
		}
	}()
	return changes, nil
}

func main() {
	log.SetFlags(0)
	if len(os.Args) < 4 {
		log.Fatal("usage: watch SERVER CA_FILE TOKEN_FILE [SECONDS_BETWEEN]")
	}
	between := 1.0
	if len(os.Args) > 4 {
		seconds, err := strconv.ParseFloat(os.Args[4], 64)
		if err != nil {
			log.Fatal(err)
		}
		between = seconds
	}
	ca, err := os.ReadFile(os.Args[2])
	if err != nil {
		log.Fatal(err)
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(ca) {
		log.Fatalf("%s holds no certificate", os.Args[2])
	}
	transport, err := open(os.Args[3], &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots}})
	if err != nil {
		log.Fatal(err)
	}
	client := &http.Client{Transport: transport, Timeout: 30 * time.Second}
	for {
		who, err := whoAmI(client, os.Args[1])
		if err != nil {
			log.Fatal(err)
		}
		fmt.Println(who)
		time.Sleep(time.Duration(between * float64(time.Second)))
	}
}

func whoAmI(client *http.Client, server string) (string, error) {
	review := []byte(`{"apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview"}`)
	response, err := client.Post(server+"/apis/authentication.k8s.io/v1/selfsubjectreviews", "application/json", bytes.NewReader(review))
	if err != nil {
		return "", err
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusCreated {
		return "", fmt.Errorf("the API server says %s", response.Status)
	}
	var answer struct {
		Status struct {
			UserInfo struct {
				Username string
				Extra    map[string][]string
			}
		}
	}
	if err := json.NewDecoder(response.Body).Decode(&answer); err != nil {
		return "", err
	}
	user := answer.Status.UserInfo
	// The API server names the token by its jti: this line changes when the token does.
	return strings.TrimSpace(user.Username + " " + strings.Join(user.Extra["authentication.kubernetes.io/credential-id"], " ")), nil
}
