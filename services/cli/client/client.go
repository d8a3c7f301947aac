// Package client holds the commands that talk to a running api: streams,
// profiles and workers. They use the client generated from the api's
// openapi.yaml and find the admin token by themselves.
package client

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/dionysia-dev/dionysia/services/api/wire"
)

// requestTimeout bounds one request to the api.
const requestTimeout = 15 * time.Second

// Context is what the commands run with.
type Context struct {
	// Ctx ends when the process is told to stop.
	Ctx            context.Context
	Stdout, Stderr io.Writer
	// Stdin is what "-f -" reads; nil is the process's own.
	Stdin io.Reader
}

// Flags are the flags that each of these commands takes.
type Flags struct {
	API       string `name:"api" env:"DIONYSIA_API" default:"http://127.0.0.1:8080" placeholder:"URL" help:"URL of the api (${default})."`
	TokenFile string `name:"token-file" env:"DIONYSIA_TOKEN_FILE" type:"path" placeholder:"FILE" help:"File with the admin token; admin.token in the data directory unless given."`
	Output    string `name:"output" short:"o" enum:"table,json" default:"table" help:"table or json (${default})."`
}

// session is a command that knows its api.
type session struct {
	*Context
	client *wire.ClientWithResponses
	json   bool
}

// connect reads the token. It sends nothing yet.
func (f *Flags) connect(c *Context) (*session, error) {
	if u, err := url.Parse(f.API); err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" {
		return nil, fmt.Errorf("--api (DIONYSIA_API): %q is not a URL such as http://127.0.0.1:8080", f.API)
	}
	path := f.tokenFile()
	token, err := readToken(path)
	if err != nil {
		return nil, err
	}
	transport := &sender{api: f.API, tokenFile: path, token: token, client: &http.Client{Timeout: requestTimeout}}
	client, err := wire.NewClientWithResponses(f.API, wire.WithHTTPClient(transport))
	if err != nil {
		return nil, fmt.Errorf("using the api at %s: %w", f.API, err)
	}
	return &session{Context: c, client: client, json: f.Output == "json"}, nil
}

func (f *Flags) tokenFile() string {
	if f.TokenFile != "" {
		return f.TokenFile
	}
	dir := os.Getenv("DIONYSIA_DATA_DIR")
	if dir == "" {
		dir = DefaultDataDir()
	}
	return filepath.Join(dir, "admin.token")
}

// DefaultDataDir is where an installation keeps its state and its admin token
// when DIONYSIA_DATA_DIR does not say: /var/lib/dionysia for root, whose home
// GPAC's unprivileged user can't pass through; otherwise dionysia in
// XDG_DATA_HOME or in ~/.local/share, or .dionysia here when there is no home.
func DefaultDataDir() string {
	if os.Geteuid() == 0 {
		return "/var/lib/dionysia"
	}
	if dir := os.Getenv("XDG_DATA_HOME"); filepath.IsAbs(dir) {
		return filepath.Join(dir, "dionysia")
	}
	home, err := os.UserHomeDir()
	if err != nil {
		return ".dionysia"
	}
	return filepath.Join(home, ".local", "share", "dionysia")
}

func readToken(path string) (string, error) {
	b, err := os.ReadFile(path)
	if errors.Is(err, os.ErrNotExist) {
		return "", fmt.Errorf("there is no admin token at %s: name the file with --token-file (a cluster's is admin.token among its keys), or start `dionysia dev`", path)
	}
	if err != nil {
		return "", fmt.Errorf("reading the admin token: %w", err)
	}
	token := strings.TrimSpace(string(b))
	if token == "" {
		return "", fmt.Errorf("the admin token file %s is empty", path)
	}
	return token, nil
}

// sender adds the token and says plainly why the api can't be reached.
type sender struct {
	api, tokenFile, token string
	client                *http.Client
}

// Do implements wire.HttpRequestDoer.
func (s *sender) Do(r *http.Request) (*http.Response, error) {
	r.Header.Set("Authorization", "Bearer "+s.token)
	res, err := s.client.Do(r)
	if err != nil {
		if r.Context().Err() != nil {
			return nil, r.Context().Err()
		}
		return nil, fmt.Errorf("the api at %s can't be reached (is it running? --api names another): %w", s.api, err)
	}
	if res.StatusCode == http.StatusUnauthorized {
		_ = res.Body.Close()
		return nil, fmt.Errorf("the api at %s does not accept the token in %s", s.api, s.tokenFile)
	}
	return res, nil
}
