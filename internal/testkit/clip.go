package testkit

import (
	"context"
	"crypto/sha256"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

// clipTime bounds the making of one clip.
const clipTime = 5 * time.Minute

// Clip returns a file of length seconds of what ffmpeg makes of args, which are
// its inputs and encoders without an output; "-re" among them is left out. A
// publisher that copies it needs next to no CPU, so that a busy machine can't
// make it fall behind real time. Clips are kept in the user's cache folder, one
// for each set of arguments.
func Clip(ffmpeg string, length time.Duration, args ...string) (string, error) {
	var enc []string
	for _, a := range args {
		if a != "-re" {
			enc = append(enc, a)
		}
	}
	enc = append(enc, "-t", fmt.Sprint(length.Seconds()), "-f", "nut")
	cache, err := os.UserCacheDir()
	if err != nil {
		return "", fmt.Errorf("finding a place for clips: %w", err)
	}
	dir := filepath.Join(cache, "dionysia", "clips")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", fmt.Errorf("finding a place for clips: %w", err)
	}
	sum := sha256.Sum256([]byte(strings.Join(enc, "\x00")))
	file := filepath.Join(dir, fmt.Sprintf("%x.nut", sum[:12]))
	if _, err := os.Stat(file); err == nil {
		return file, nil
	}
	tmp, err := os.CreateTemp(dir, "making-*")
	if err != nil {
		return "", fmt.Errorf("making a clip: %w", err)
	}
	defer func() { _ = os.Remove(tmp.Name()) }()
	if err := tmp.Close(); err != nil {
		return "", fmt.Errorf("making a clip: %w", err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), clipTime)
	defer cancel()
	all := append([]string{"-loglevel", "error", "-nostdin", "-y"}, append(enc, tmp.Name())...)
	if out, err := exec.CommandContext(ctx, ffmpeg, all...).CombinedOutput(); err != nil {
		return "", fmt.Errorf("making a clip with %q: %w: %.500s", all, err, out)
	}
	if err := os.Rename(tmp.Name(), file); err != nil {
		return "", fmt.Errorf("making a clip: %w", err)
	}
	return file, nil
}
