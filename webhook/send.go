package webhook

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"crypto/tls"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"syscall"
	"time"

	"github.com/daeploy/daeploy"
)

// maxAnswer is how much of an answer is read, in bytes, headers and body each.
const maxAnswer = 64 << 10

// refusal is an answer that will hardly change by itself.
type refusal struct{ status int }

func (r *refusal) Error() string {
	if r.status/100 == 3 {
		return fmt.Sprintf("it answered %d, a redirect, which is not followed", r.status)
	}
	return fmt.Sprintf("it answered %d", r.status)
}

// trouble is an answer that may change; after is what the receiver asked for.
type trouble struct {
	status int
	after  time.Duration
}

func (t *trouble) Error() string { return fmt.Sprintf("it answered %d", t.status) }

// errGone is what 410 stands for.
var errGone = errors.New("it answered 410: it wants no more")

func askedToWait(err error) time.Duration {
	if t, ok := errors.AsType[*trouble](err); ok {
		return t.after
	}
	return 0
}

// send posts an event once. The error is nil only if the answer is 2xx; it has
// nothing of the URL but its host. status is 0 if there was no answer.
func (h *hook) send(ctx context.Context, delivery string, e daeploy.Event) (status int, err error) {
	body, err := h.config.Describe(delivery, e)
	if err != nil {
		return 0, fmt.Errorf("describe the event: %w", err)
	}
	ctx, cancel := context.WithTimeout(ctx, h.Timeout)
	defer cancel()
	request, err := h.request(ctx, delivery, e.Kind, body)
	if err != nil {
		return 0, err
	}
	client, err := h.client()
	if err != nil {
		return 0, err
	}
	defer client.CloseIdleConnections()
	answer, err := client.Do(request)
	if err != nil {
		if fault, ok := errors.AsType[*url.Error](err); ok {
			err = fault.Err // the rest is the URL
		}
		if errors.Is(ctx.Err(), context.DeadlineExceeded) {
			err = fmt.Errorf("no answer within %s", h.Timeout)
		}
		return 0, err
	}
	defer answer.Body.Close()
	// Whoever closes before the answer has come is a bad client to many servers.
	_, _ = io.CopyN(io.Discard, answer.Body, maxAnswer) // the status has said it all
	return answer.StatusCode, verdict(answer)
}

// verdict is what the status means.
func verdict(answer *http.Response) error {
	switch status := answer.StatusCode; {
	case status/100 == 2:
		return nil
	case status == http.StatusGone:
		return errGone
	case status == http.StatusRequestTimeout, status == http.StatusTooEarly, status == http.StatusTooManyRequests, status >= 500:
		seconds, _ := strconv.Atoi(answer.Header.Get("Retry-After")) // a date, or nonsense: our own pause will do
		return &trouble{status, time.Duration(min(max(seconds, 0), 3600)) * time.Second}
	default:
		return &refusal{status}
	}
}

func (h *hook) request(ctx context.Context, delivery string, kind daeploy.EventKind, body []byte) (*http.Request, error) {
	secret, err := h.Secret()
	if err != nil {
		return nil, fmt.Errorf("read its secret: %w", err)
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, h.URL.String(), bytes.NewReader(body))
	if err != nil {
		return nil, errors.New("its URL cannot be used") // the error has it in full
	}
	stamp := strconv.FormatInt(time.Now().Unix(), 10)
	mac := hmac.New(sha256.New, secret)
	_, _ = mac.Write([]byte(stamp + ".")) // never fails
	_, _ = mac.Write(body)
	for name, value := range map[string]string{
		"Content-Type": "application/json", "User-Agent": h.config.UserAgent,
		"Daeploy-Event": string(kind), "Daeploy-Delivery": delivery, "Daeploy-Timestamp": stamp,
		"Daeploy-Signature": "v1=" + hex.EncodeToString(mac.Sum(nil)),
	} {
		request.Header.Set(name, value)
	}
	return request, nil
}

// client goes straight to the receiver: no proxy, no redirect, no connection
// that is kept, and no address that it may not be at. The address is looked at
// when it is dialled, since a name may come to point to anything.
func (h *hook) client() (*http.Client, error) {
	dialer := &net.Dialer{Control: func(_, address string, _ syscall.RawConn) error {
		if h.Trusted {
			return nil
		}
		return h.config.CheckDial(address)
	}}
	trust := &tls.Config{MinVersion: tls.VersionTLS12}
	if h.Roots != nil {
		var err error
		if trust.RootCAs, err = h.Roots(); err != nil {
			return nil, fmt.Errorf("read its authorities: %w", err)
		}
	}
	return &http.Client{
		Transport: &http.Transport{
			DialContext: dialer.DialContext, TLSClientConfig: trust, DisableKeepAlives: true, DisableCompression: true,
			MaxResponseHeaderBytes: maxAnswer,
		},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}, nil
}

// clip bounds what is kept of an error.
func clip(text string) string { return text[:min(len(text), 300)] }
