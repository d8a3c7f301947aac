package auth

import (
	"strings"
	"testing"
)

func TestEpochSignature(t *testing.T) {
	s, other := Secret("0123456789abcdef0123456789abcdef"), Secret("another-secret-another-secret-00")
	header := s.SignEpoch("demo", 7)
	if !strings.HasPrefix(header, "7;") || !s.VerifyEpoch("demo", 7, header) {
		t.Fatalf("own signature refused: %s", header)
	}
	forged := strings.Replace(header, "7;", "8;", 1)
	for name, ok := range map[string]bool{
		"another stream": s.VerifyEpoch("demo2", 7, header),
		"another epoch":  s.VerifyEpoch("demo", 8, header),
		"forged epoch":   s.VerifyEpoch("demo", 8, forged),
		"another secret": other.VerifyEpoch("demo", 7, header),
		"no signature":   s.VerifyEpoch("demo", 7, "7"),
		"empty":          s.VerifyEpoch("demo", 7, ""),
	} {
		if ok {
			t.Errorf("%s accepted", name)
		}
	}
}
