package kit

import (
	"fmt"
	"io"
	"net/http"
	"net/url"
	"time"
)

// viewer is a client that keeps few connections and follows redirects.
var viewerTimeout = 20 * time.Second

// Fetch gets a URL as a player would.
func Fetch(rawURL string) (Answer, error) {
	c := http.Client{Timeout: viewerTimeout}
	resp, err := c.Get(rawURL)
	if err != nil {
		return Answer{}, err
	}
	defer func() { _ = resp.Body.Close() }()
	b, err := io.ReadAll(resp.Body)
	return Answer{Status: resp.StatusCode, Header: resp.Header, Body: b}, err
}

// FetchOK is Fetch where anything but 200 is an error.
func FetchOK(rawURL string) ([]byte, error) {
	a, err := Fetch(rawURL)
	if err != nil {
		return nil, err
	}
	if a.Status != http.StatusOK {
		return nil, fmt.Errorf("%s: status %d: %.200s", rawURL, a.Status, a.Body)
	}
	return a.Body, nil
}

// resolve returns ref as an absolute URL, relative to base.
func resolve(base, ref string) (string, error) {
	b, err := url.Parse(base)
	if err != nil {
		return "", err
	}
	r, err := url.Parse(ref)
	if err != nil {
		return "", err
	}
	return b.ResolveReference(r).String(), nil
}
