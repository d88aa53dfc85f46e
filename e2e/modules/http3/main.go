// A client of HTTP/3 for tests, and a backend for it.
//
//	http3 backend ADDRESS             serves HTTP/1.1
//	http3 check ADDRESS HOST CA-FILE  finds HTTP/3 as browsers do and asks for all kinds of things
//	http3 get ADDRESS HOST CA-FILE    finds it and prints what / answers
//
// The backend gives back what it is sent (with its length in a trailer), sends as many bytes as /bytes/N asks for, answers
// /refuse before it has read anything, gives hints at /hints, and speaks WebSocket at /socket. A check ends with what has
// failed.
package main

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/textproto"
	"os"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/quic-go/quic-go"
	"github.com/quic-go/quic-go/http3"
	"golang.org/x/sync/errgroup"
)

const (
	large    = 5 << 20
	small    = 300 << 10
	parallel = 20
	patience = 30 * time.Second
)

func main() {
	log.SetFlags(0)
	var err error
	switch {
	case len(os.Args) == 3 && os.Args[1] == "backend":
		err = serve(os.Args[2])
	case len(os.Args) == 5 && (os.Args[1] == "check" || os.Args[1] == "get"):
		err = ask(os.Args[1], os.Args[2], os.Args[3], os.Args[4])
	default:
		err = errors.New("usage: http3 backend ADDRESS | http3 check|get ADDRESS HOST CA-FILE")
	}
	if err != nil {
		log.Fatal(err)
	}
}

func serve(address string) error {
	http.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("x-seen-proto", r.Proto)
		w.Header().Set("x-seen-forwarded", r.Header.Get("x-forwarded-proto")+" "+r.Header.Get("x-forwarded-for"))
		w.Header().Set("trailer", "x-length, x-sum")
		if err := http.NewResponseController(w).EnableFullDuplex(); err != nil {
			log.Print(err)
		}
		n, err := io.Copy(w, r.Body)
		if err != nil {
			panic(http.ErrAbortHandler)
		}
		w.Header().Set("x-length", strconv.FormatInt(n, 10))
		w.Header().Set("x-sum", r.Trailer.Get("x-sum"))
	})
	http.HandleFunc("/bytes/{count}", func(w http.ResponseWriter, r *http.Request) {
		count, err := strconv.Atoi(r.PathValue("count"))
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		piece := bytes.Repeat([]byte("sixteen bytes...."), 1000)
		for count > 0 && err == nil {
			n := min(count, len(piece))
			_, err = w.Write(piece[:n])
			count -= n
		}
	})
	http.HandleFunc("/refuse", func(w http.ResponseWriter, _ *http.Request) {
		http.Error(w, "too much", http.StatusRequestEntityTooLarge)
	})
	http.HandleFunc("/hints", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("link", "</style.css>; rel=preload")
		w.WriteHeader(http.StatusEarlyHints)
		w.WriteHeader(http.StatusNoContent)
	})
	http.Handle("/socket", mirrored)
	return http.ListenAndServe(address, nil)
}

// A checker asks one server, whatever a URL's host is.
type checker struct {
	address, host string
	roots         *x509.CertPool
	quic          *http.Client
}

func ask(what, address, host, file string) error {
	pem, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	c := checker{address: address, host: host, roots: x509.NewCertPool()}
	if !c.roots.AppendCertsFromPEM(pem) {
		return fmt.Errorf("%s: no certificate", file)
	}
	transport := &http3.Transport{
		TLSClientConfig: c.tls(),
		Dial: func(ctx context.Context, _ string, tls *tls.Config, config *quic.Config) (*quic.Conn, error) {
			return quic.DialAddr(ctx, address, tls, config)
		},
	}
	defer transport.Close()
	c.quic = &http.Client{Transport: transport, Timeout: patience}
	if what == "get" {
		return c.print()
	}
	return c.check()
}

func (c *checker) print() error {
	if err := c.announced(); err != nil {
		return err
	}
	request, err := http.NewRequest(http.MethodGet, c.url("/"), nil)
	if err != nil {
		return err
	}
	_, body, err := c.send(request, http.StatusOK)
	if err != nil {
		return err
	}
	_, err = os.Stdout.Write(body)
	return err
}

func (c *checker) check() error {
	for _, step := range []struct {
		name string
		run  func() error
	}{
		{"it is announced", c.announced},
		{"a request", c.get},
		{"a large body, and trailers", c.echo},
		{"a large response", c.download},
		{"requests in parallel", c.parallel},
		{"an answer before the body is read", c.refused},
		{"informational responses", c.hints},
		{"a client that cancels", c.cancel},
		{"WebSocket", c.websocket},
		{"a tunnel", c.tunnel},
		{"requests after all that", c.get},
	} {
		if err := step.run(); err != nil {
			return fmt.Errorf("%s: %w", step.name, err)
		}
		log.Printf("%s: passed", step.name)
	}
	return nil
}

func (c *checker) tls() *tls.Config {
	return &tls.Config{RootCAs: c.roots, ServerName: c.host}
}

func (c *checker) url(path string) string {
	return "https://" + c.host + path
}

// Over TCP, with HTTP/1.1 and HTTP/2, a client learns where HTTP/3 is.
func (c *checker) announced() error {
	_, port, err := net.SplitHostPort(c.address)
	if err != nil {
		return err
	}
	announcement := regexp.MustCompile(`h3=":(\d+)"; ma=\d+`)
	for _, version := range []int{1, 2} {
		transport := &http.Transport{
			DialContext: func(ctx context.Context, network, _ string) (net.Conn, error) {
				return new(net.Dialer).DialContext(ctx, network, c.address)
			},
			TLSClientConfig:   c.tls(),
			ForceAttemptHTTP2: version == 2,
		}
		client := http.Client{Transport: transport, Timeout: patience}
		response, err := client.Get(c.url("/"))
		if err != nil {
			return err
		}
		response.Body.Close()
		transport.CloseIdleConnections()
		if response.ProtoMajor != version {
			return fmt.Errorf("%s instead of HTTP/%d", response.Proto, version)
		}
		found := announcement.FindStringSubmatch(response.Header.Get("alt-svc"))
		if found == nil || found[1] != port {
			return fmt.Errorf("%s: alt-svc %q", response.Proto, response.Header.Get("alt-svc"))
		}
	}
	return nil
}

// Sends a request over HTTP/3, and gives back the response with its body read.
func (c *checker) send(request *http.Request, status int) (*http.Response, []byte, error) {
	response, err := c.quic.Do(request)
	if err != nil {
		return nil, nil, err
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		return nil, nil, err
	}
	if response.ProtoMajor != 3 || response.StatusCode != status {
		return nil, nil, fmt.Errorf("%s %s instead of %d", response.Proto, response.Status, status)
	}
	return response, body, nil
}

func (c *checker) get() error {
	request, err := http.NewRequest(http.MethodGet, c.url("/"), nil)
	if err != nil {
		return err
	}
	response, _, err := c.send(request, http.StatusOK)
	if err != nil {
		return err
	}
	if proto := response.Header.Get("x-seen-proto"); proto != "HTTP/1.1" {
		return fmt.Errorf("the backend saw %q", proto)
	}
	if seen := response.Header.Get("x-seen-forwarded"); !strings.HasPrefix(seen, "https 127.0.0.1") {
		return fmt.Errorf("the backend saw %q", seen)
	}
	return nil
}

func random(length int) []byte {
	body := make([]byte, length)
	// Never fails.
	_, _ = rand.Read(body)
	return body
}

// Sends a body and checks that it comes back.
func (c *checker) mirror(length int) (*http.Response, error) {
	body := random(length)
	// A reader of unknown length.
	request, err := http.NewRequest(http.MethodPost, c.url("/"), io.MultiReader(bytes.NewReader(body)))
	if err != nil {
		return nil, err
	}
	request.Trailer = http.Header{"X-Sum": {"forty-two"}}
	response, got, err := c.send(request, http.StatusOK)
	if err != nil {
		return nil, err
	}
	if !bytes.Equal(got, body) {
		return nil, fmt.Errorf("%d bytes came back of %d, or others", len(got), len(body))
	}
	return response, nil
}

func (c *checker) echo() error {
	response, err := c.mirror(large)
	if err != nil {
		return err
	}
	if length := response.Trailer.Get("x-length"); length != strconv.Itoa(large) {
		return fmt.Errorf("trailer x-length is %q", length)
	}
	return nil
}

func (c *checker) download() error {
	request, err := http.NewRequest(http.MethodGet, c.url("/bytes/"+strconv.Itoa(large)), nil)
	if err != nil {
		return err
	}
	_, got, err := c.send(request, http.StatusOK)
	if err == nil && len(got) != large {
		err = fmt.Errorf("%d bytes", len(got))
	}
	return err
}

func (c *checker) parallel() error {
	var group errgroup.Group
	for range parallel {
		group.Go(func() error {
			_, err := c.mirror(small)
			return err
		})
	}
	return group.Wait()
}

func (c *checker) refused() error {
	request, err := http.NewRequest(http.MethodPost, c.url("/refuse"), bytes.NewReader(random(large)))
	if err != nil {
		return err
	}
	_, got, err := c.send(request, http.StatusRequestEntityTooLarge)
	if err == nil && string(got) != "too much\n" {
		err = fmt.Errorf("%q", got)
	}
	return err
}

func (c *checker) hints() error {
	var hints []string
	ctx := httptrace.WithClientTrace(context.Background(), &httptrace.ClientTrace{
		Got1xxResponse: func(code int, header textproto.MIMEHeader) error {
			hints = append(hints, strconv.Itoa(code)+" "+header.Get("link"))
			return nil
		},
	})
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, c.url("/hints"), nil)
	if err != nil {
		return err
	}
	_, _, err = c.send(request, http.StatusNoContent)
	if err == nil && (len(hints) != 1 || hints[0] != "103 </style.css>; rel=preload") {
		err = fmt.Errorf("%q", hints)
	}
	return err
}

func (c *checker) cancel() error {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, c.url("/bytes/1000000000"), nil)
	if err != nil {
		return err
	}
	response, err := c.quic.Do(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	if _, err := io.CopyN(io.Discard, response.Body, small); err != nil {
		return err
	}
	cancel()
	if _, err := io.Copy(io.Discard, response.Body); err == nil {
		return errors.New("it looks complete")
	}
	return nil
}
