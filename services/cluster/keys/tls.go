package keys

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"time"
)

// authorityDays is how long an authority's own certificate is good.
const authorityDays = 10 * 365

// clockSkew is how far the clock of a host may be behind the one that made a
// certificate.
const clockSkew = time.Hour

// authority signs the certificates of one program's agents.
type authority struct {
	cert *x509.Certificate
	pem  []byte
	key  *ecdsa.PrivateKey
}

// wanted is a certificate to be there.
type wanted struct {
	cert, key string // files
	name      string // the subject's
	dns       []string
	ips       []net.IP
}

// issuer makes certificates.
type issuer struct {
	*folder
	now   time.Time
	days  int  // of a new certificate
	renew bool // those that are good are made anew, too
}

// authority returns the authority in NAME.ca.pem and NAME.ca.key, made if it is
// not there. Its certificate is renewed in time, for the same key and name: what
// it has signed stays good, and hosts with the old one accept what it signs.
func (i *issuer) authority(name string) (*authority, error) {
	file, keyFile := name+".ca.pem", name+".ca.key"
	cert, err := i.read(file)
	if err != nil {
		return nil, err
	}
	if _, err := os.Stat(filepath.Join(i.dir, keyFile)); cert != nil && errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("%s is there and its key, %s, is not: bring it back, or remove the first for a new authority, which every host must get", filepath.Join(i.dir, file), keyFile)
	}
	key, err := i.key(keyFile)
	if err != nil {
		return nil, err
	}
	if cert != nil && !key.PublicKey.Equal(cert.PublicKey) {
		return nil, fmt.Errorf("%s is not of the key in %s: one of them is another cluster's; bring the right one back", filepath.Join(i.dir, file), keyFile)
	}
	if cert == nil || i.now.AddDate(0, 0, i.days).After(cert.NotAfter) {
		t := &x509.Certificate{
			Subject:   pkix.Name{Organization: []string{"Dionysia"}, CommonName: name + " authority"},
			NotBefore: i.now.Add(-clockSkew), NotAfter: i.now.AddDate(0, 0, max(authorityDays, 2*i.days)),
			IsCA: true, BasicConstraintsValid: true, MaxPathLenZero: true,
			KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
		}
		if cert, err = i.sign(file, t, t, key, key); err != nil {
			return nil, err
		}
	} else {
		i.kept++
	}
	return &authority{cert: cert, pem: encode("CERTIFICATE", cert.Raw), key: key}, nil
}

// certificate makes what is wanted, unless it is there, good and not to be
// renewed. It returns the time of its end. The key stays the same.
func (i *issuer) certificate(a *authority, w wanted) (time.Time, error) {
	key, err := i.key(w.key)
	if err != nil {
		return time.Time{}, err
	}
	cert, err := i.read(w.cert)
	if err != nil {
		return time.Time{}, err
	}
	if cert != nil && !i.renew && i.good(cert, a, key, w) {
		i.kept++
		return cert.NotAfter, nil
	}
	cert, err = i.sign(w.cert, &x509.Certificate{
		Subject:   pkix.Name{Organization: []string{"Dionysia"}, CommonName: w.name},
		NotBefore: i.now.Add(-clockSkew), NotAfter: i.now.AddDate(0, 0, i.days),
		DNSNames: w.dns, IPAddresses: w.ips,
		BasicConstraintsValid: true,
		KeyUsage:              x509.KeyUsageDigitalSignature,
		ExtKeyUsage:           []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}, a.cert, key, a.key)
	if err != nil {
		return time.Time{}, err
	}
	return cert.NotAfter, nil
}

// good says that the certificate is of this key, authority and these names, and
// has not ended.
func (i *issuer) good(cert *x509.Certificate, a *authority, key *ecdsa.PrivateKey, w wanted) bool {
	roots := x509.NewCertPool()
	roots.AddCert(a.cert)
	_, err := cert.Verify(x509.VerifyOptions{Roots: roots, CurrentTime: i.now, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny}})
	return err == nil && key.PublicKey.Equal(cert.PublicKey) && slices.Equal(cert.DNSNames, w.dns) &&
		slices.EqualFunc(cert.IPAddresses, w.ips, net.IP.Equal)
}

func (i *issuer) sign(file string, t, parent *x509.Certificate, key, signer *ecdsa.PrivateKey) (*x509.Certificate, error) {
	der, err := x509.CreateCertificate(rand.Reader, t, parent, &key.PublicKey, signer)
	if err != nil {
		return nil, fmt.Errorf("signing %s: %w", file, err)
	}
	if err := i.put(file, encode("CERTIFICATE", der)); err != nil {
		return nil, err
	}
	return x509.ParseCertificate(der)
}

// key returns the P-256 key in the file, made if it is not there.
func (i *issuer) key(file string) (*ecdsa.PrivateKey, error) {
	b, err := i.once(file, func() ([]byte, error) {
		key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			return nil, err
		}
		der, err := x509.MarshalPKCS8PrivateKey(key)
		return encode("PRIVATE KEY", der), err
	})
	if err != nil {
		return nil, err
	}
	path := filepath.Join(i.dir, file)
	block, _ := pem.Decode(b)
	if block == nil {
		return nil, fmt.Errorf("%s: not a private key in PEM", path)
	}
	parsed, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	key, ok := parsed.(*ecdsa.PrivateKey)
	if !ok {
		return nil, fmt.Errorf("%s: %T, not an ECDSA key", path, parsed)
	}
	return key, nil
}

// read returns the certificate in the file, nil if there is none.
func (i *issuer) read(file string) (*x509.Certificate, error) {
	path := filepath.Join(i.dir, file)
	b, err := os.ReadFile(path)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	block, _ := pem.Decode(b)
	if block == nil {
		return nil, fmt.Errorf("%s: not a certificate in PEM", path)
	}
	cert, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return cert, nil
}

func encode(kind string, der []byte) []byte {
	var b bytes.Buffer
	_ = pem.Encode(&b, &pem.Block{Type: kind, Bytes: der}) // to memory: it can't fail
	return b.Bytes()
}
