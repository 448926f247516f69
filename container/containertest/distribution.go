package containertest

import (
	"bufio"
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"maps"
	"math/big"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"syscall"
	"testing"
	"time"

	"golang.org/x/crypto/bcrypt"
)

// Distribution is Debian's docker-registry on loopback, with TLS by a
// certificate authority of its own, for one user. Its methods are for one
// goroutine.
type Distribution struct {
	Host           string // "127.0.0.1:4711"
	CA             string // path of the authority's certificate
	User, Password string

	dir    string
	cmd    *exec.Cmd
	log    chan string // closed when the program has closed its output
	client *http.Client
}

const distributionConfig = `version: 0.1
log: {level: info}
storage: {filesystem: {rootdirectory: %q}}
http: {addr: %q, tls: {certificate: %q, key: %q}}
auth: {htpasswd: {realm: test, path: %q}}
`

// NewDistribution starts one in dir. The caller calls Close.
func NewDistribution(dir string) (*Distribution, error) {
	if _, err := exec.LookPath("docker-registry"); err != nil {
		return nil, fmt.Errorf("this test wants a registry: %w; run: make deps", err)
	}
	d := &Distribution{CA: filepath.Join(dir, "ca.pem"), User: "anna", Password: rand.Text(), dir: dir, Host: "127.0.0.1:0"}
	if err := d.certify(); err != nil {
		return nil, err
	}
	if err := d.SetPassword(d.Password); err != nil {
		return nil, err
	}
	if err := d.Start(); err != nil {
		return nil, errors.Join(err, d.Close())
	}
	return d, nil
}

// certify makes an authority and a certificate for 127.0.0.1.
func (d *Distribution) certify() error {
	template := func(n int64) *x509.Certificate {
		return &x509.Certificate{
			SerialNumber: big.NewInt(n), Subject: pkix.Name{CommonName: fmt.Sprintf("test %d", n)},
			NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), BasicConstraintsValid: true,
		}
	}
	caKey, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	ca, leaf := template(1), template(2)
	ca.IsCA, ca.KeyUsage = true, x509.KeyUsageCertSign
	leaf.IPAddresses, leaf.ExtKeyUsage = []net.IP{net.IPv4(127, 0, 0, 1)}, []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}
	caText, err := x509.CreateCertificate(rand.Reader, ca, ca, &caKey.PublicKey, caKey)
	if err != nil {
		return err
	}
	leafText, err := x509.CreateCertificate(rand.Reader, leaf, ca, &key.PublicKey, caKey)
	if err != nil {
		return err
	}
	keyText, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return err
	}
	for name, block := range map[string]pem.Block{
		"ca.pem": {Type: "CERTIFICATE", Bytes: caText}, "tls.pem": {Type: "CERTIFICATE", Bytes: leafText}, "key.pem": {Type: "PRIVATE KEY", Bytes: keyText},
	} {
		if err := os.WriteFile(filepath.Join(d.dir, name), pem.EncodeToMemory(&block), 0o600); err != nil {
			return err
		}
	}
	pool := x509.NewCertPool()
	caCert, err := x509.ParseCertificate(caText)
	if err != nil {
		return err
	}
	pool.AddCert(caCert)
	d.client = &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool}}}
	return nil
}

// SetPassword changes the password; the registry reads it at each request.
func (d *Distribution) SetPassword(password string) error {
	hash, err := bcrypt.GenerateFromPassword([]byte(password), bcrypt.MinCost)
	if err != nil {
		return err
	}
	d.Password = password
	return os.WriteFile(filepath.Join(d.dir, "htpasswd"), fmt.Appendf(nil, "%s:%s\n", d.User, hash), 0o600)
}

var listening = regexp.MustCompile(`listening on (127\.0\.0\.1:[0-9]+)`)

// Start starts it, after Stop on the same port.
func (d *Distribution) Start() error {
	in := func(name string) string { return filepath.Join(d.dir, name) }
	config := fmt.Sprintf(distributionConfig, in("data"), d.Host, in("tls.pem"), in("key.pem"), in("htpasswd"))
	if err := os.WriteFile(in("config.yml"), []byte(config), 0o600); err != nil {
		return err
	}
	d.cmd = exec.Command("docker-registry", "serve", in("config.yml"))
	d.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	out, err := d.cmd.StderrPipe()
	if err != nil {
		return err
	}
	if err := d.cmd.Start(); err != nil {
		return err
	}
	d.log = make(chan string, 1)
	go read(out, d.log)
	select {
	case host := <-d.log:
		if host == "" {
			return errors.New("docker-registry ends at once")
		}
		d.Host = host
		return nil
	case <-time.After(20 * time.Second):
		return errors.New("docker-registry does not listen")
	}
}

// read finds the address in the registry's log, and reads the rest so that the
// registry can go on writing.
func read(out io.Reader, host chan<- string) {
	defer close(host)
	for lines := bufio.NewScanner(out); lines.Scan(); {
		if m := listening.FindStringSubmatch(lines.Text()); m != nil {
			host <- m[1]
		}
	}
}

// Stop ends it; what it stores stays.
func (d *Distribution) Stop() error {
	if d.cmd == nil || d.cmd.Process == nil {
		return nil
	}
	cmd := d.cmd
	d.cmd = nil
	if err := cmd.Process.Kill(); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return err
	}
	for range d.log { // until its output is closed, as Wait wants it
	}
	_ = cmd.Wait() // it was killed
	return nil
}

// Close ends it for good.
func (d *Distribution) Close() error {
	d.client.CloseIdleConnections()
	return d.Stop()
}

// Add stores an image as "team/app:1" by the calls of the distribution API, and
// gives the digest of its manifest.
func (d *Distribution) Add(t testing.TB, name string, image Image) (string, error) {
	t.Helper()
	var from Registry
	from.blobs = map[string][]byte{}
	manifest := from.unpack(t, Archive(t, image))
	text := from.blobs[manifest.Digest.String()]
	repository, tag := split(name)
	for _, dgst := range slices.Sorted(maps.Keys(from.blobs)) {
		if dgst == manifest.Digest.String() {
			continue
		}
		to, err := d.call(http.MethodPost, "/v2/"+repository+"/blobs/uploads/", "", nil)
		if err != nil {
			return "", err
		}
		query := to.Query()
		query.Set("digest", dgst)
		to.RawQuery = query.Encode()
		if _, err := d.call(http.MethodPut, to.RequestURI(), "application/octet-stream", from.blobs[dgst]); err != nil {
			return "", err
		}
	}
	_, err := d.call(http.MethodPut, "/v2/"+repository+"/manifests/"+tag, manifest.MediaType, text)
	return manifest.Digest.String(), err
}

// Get reads what it answers to a path, as its user.
func (d *Distribution) Get(path string) ([]byte, error) {
	request, err := http.NewRequest(http.MethodGet, "https://"+d.Host+path, nil)
	if err != nil {
		return nil, err
	}
	request.SetBasicAuth(d.User, d.Password)
	request.Header.Set("Accept", "application/vnd.oci.image.manifest.v1+json, application/vnd.oci.image.index.v1+json, */*")
	response, err := d.client.Do(request)
	if err != nil {
		return nil, err
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	if err == nil && response.StatusCode != http.StatusOK {
		err = fmt.Errorf("GET %s: %s\n%s", path, response.Status, text)
	}
	return text, err
}

// call gives where the answer points to; all but 2xx is an error.
func (d *Distribution) call(method, path, mediaType string, body []byte) (*url.URL, error) {
	request, err := http.NewRequest(method, "https://"+d.Host+path, bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	request.SetBasicAuth(d.User, d.Password)
	request.Header.Set("Content-Type", mediaType)
	response, err := d.client.Do(request)
	if err != nil {
		return nil, err
	}
	defer response.Body.Close()
	if response.StatusCode/100 != 2 {
		text, _ := io.ReadAll(io.LimitReader(response.Body, 1000)) // for the error only
		return nil, fmt.Errorf("%s %s: %s\n%s", method, path, response.Status, text)
	}
	return response.Location()
}
