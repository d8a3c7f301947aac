package auth

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"strconv"
)

const labelEpoch = "router-epoch"

// SignEpoch returns the value of the Dionysia-Epoch header with which a router
// tells an origin the highest epoch that it knows of a stream: the epoch, a
// semicolon, and an HMAC-SHA256 of both. An unsigned one would let whoever
// reaches an origin fence it.
func (s Secret) SignEpoch(stream string, epoch uint64) string {
	n := strconv.FormatUint(epoch, 10)
	return n + ";" + base64.RawURLEncoding.EncodeToString(s.epochMAC(stream, n))
}

// VerifyEpoch reports whether header is what SignEpoch returns for stream and
// epoch.
func (s Secret) VerifyEpoch(stream string, epoch uint64, header string) bool {
	return hmac.Equal([]byte(header), []byte(s.SignEpoch(stream, epoch)))
}

func (s Secret) epochMAC(stream, epoch string) []byte {
	mac := hmac.New(sha256.New, []byte(s.Derive(labelEpoch)))
	// A stream's id has no newline.
	fmt.Fprintf(mac, "%s\n%s", stream, epoch)
	return mac.Sum(nil)
}
