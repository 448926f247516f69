package test_test

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"regexp"
	"strconv"
	"sync/atomic"
	"time"
)

const hookSecret = "a secret of the story's own"

// doReceiver is the word "receiver" of stories:
//
//	receiver start         takes webhooks over https at $RECEIVER, signed with the secret in receiver.secret;
//	                       receiver.pem is its authority
//	receiver answers N     answers with this status from now on; hangs if it is 0
//	receiver ids N         as many delivery ids have come
//
// What it was sent stands in the file received, a line for each request: the
// status it answered, and the body. A request with a wrong signature, or with
// headers that say something else than the body, is a line with BAD.
func (t *teller) doReceiver(args []string) error {
	switch args[0] {
	case "start":
		return t.startReceiver()
	case "answers":
		status, err := strconv.Atoi(args[1])
		t.receiver.Store(int64(status))
		return err
	case "ids":
		ids := map[string]bool{}
		for _, m := range regexp.MustCompile(`"delivery":"([0-9a-f]+)"`).FindAllStringSubmatch(t.ts.ReadFile("received"), -1) {
			ids[m[1]] = true
		}
		if want, err := strconv.Atoi(args[1]); err != nil || want != len(ids) {
			return fmt.Errorf("%d delivery ids have come, want %s", len(ids), args[1])
		}
		return nil
	}
	return fmt.Errorf("receiver %s?", args[0])
}

func (t *teller) startReceiver() error {
	received, err := os.OpenFile(t.path("received"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	t.receiver = new(atomic.Int64)
	t.receiver.Store(http.StatusNoContent)
	server := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		status := int(t.receiver.Load())
		body, err := io.ReadAll(r.Body)
		if err = errors.Join(err, checkNotice(r.Header, body)); err != nil {
			fmt.Fprintln(received, "BAD", err)
		}
		fmt.Fprintf(received, "%d %s", status, body)
		if status == 0 {
			<-r.Context().Done()
			return
		}
		w.WriteHeader(status)
	}))
	t.ts.Defer(func() {
		server.Close()
		received.Close()
	})
	t.ts.Setenv("RECEIVER", server.URL)
	t.ts.Setenv("RECEIVER_HOST", server.Listener.Addr().String())
	t.ts.Setenv("WORKDIR", t.work)
	ca := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw})
	return errors.Join(
		os.WriteFile(t.path("receiver.pem"), ca, 0o600),
		os.WriteFile(t.path("receiver.secret"), []byte(hookSecret+"\n"), 0o600),
	)
}

// checkNotice does what docs/webhooks.md tells receivers to do.
func checkNotice(header http.Header, body []byte) error {
	mac := hmac.New(sha256.New, []byte(hookSecret))
	io.WriteString(mac, header.Get("Daeploy-Timestamp"))
	io.WriteString(mac, ".")
	mac.Write(body)
	if want := "v1=" + hex.EncodeToString(mac.Sum(nil)); header.Get("Daeploy-Signature") != want {
		return fmt.Errorf("signature %q, want %q", header.Get("Daeploy-Signature"), want)
	}
	seconds, err := strconv.ParseInt(header.Get("Daeploy-Timestamp"), 10, 64)
	if age := time.Since(time.Unix(seconds, 0)); err != nil || age < -time.Minute || age > time.Minute {
		return fmt.Errorf("timestamp %q", header.Get("Daeploy-Timestamp"))
	}
	var notice struct {
		Delivery string
		Event    struct{ Kind string }
	}
	if err := json.Unmarshal(body, &notice); err != nil {
		return err
	}
	if notice.Delivery != header.Get("Daeploy-Delivery") || notice.Event.Kind != header.Get("Daeploy-Event") {
		return fmt.Errorf("headers %v with the body %s", header, body)
	}
	return nil
}

// doReceived waits until a receiver has been sent what matches.
func (t *teller) doReceived(args []string) error {
	pattern, err := regexp.Compile("(?m)" + args[0])
	if err != nil {
		return err
	}
	return within(30*time.Second, func() error {
		text, err := os.ReadFile(t.path("received"))
		if err == nil && !pattern.Match(text) {
			err = fmt.Errorf("not received: %s\n%s", pattern, text)
		}
		return err
	})
}
