package discovery

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/miekg/dns"
)

// udpSize is the answer size that the question allows (EDNS0): what an IPv6
// path carries unfragmented.
const udpSize = 1232

// asker asks one DNS server.
type asker struct {
	addr     string
	udp, tcp *dns.Client
}

func newAsker(addr string, timeout time.Duration) asker {
	return asker{
		addr: addr,
		udp:  &dns.Client{Net: "udp", Timeout: timeout, UDPSize: udpSize},
		tcp:  &dns.Client{Net: "tcp", Timeout: timeout},
	}
}

// answer is what one SRV question gave.
type answer struct {
	addrs []string
	ttl   time.Duration // the least of the records used
}

// reasonOf names why a question failed, for metrics.
func reasonOf(err error) string {
	if errors.Is(err, ErrUnknown) {
		return "unknown"
	}
	return "error"
}

// ask resolves name's SRV records to addresses, best first (RFC 2782: lowest
// priority, then highest weight). It returns ErrUnknown for NXDOMAIN and for an
// answer without records.
func (a asker) ask(ctx context.Context, name string) (answer, error) {
	resp, err := a.exchange(ctx, name, dns.TypeSRV)
	if err != nil {
		return answer{}, err
	}
	var srvs []*dns.SRV
	for _, rr := range resp.Answer {
		if srv, ok := rr.(*dns.SRV); ok && srv.Port != 0 {
			srvs = append(srvs, srv)
		}
	}
	if len(srvs) == 0 {
		return answer{}, fmt.Errorf("srv %s: %w", name, ErrUnknown)
	}
	slices.SortStableFunc(srvs, func(x, y *dns.SRV) int {
		return cmp.Or(cmp.Compare(x.Priority, y.Priority), cmp.Compare(y.Weight, x.Weight))
	})
	ans := answer{ttl: time.Duration(srvs[0].Hdr.Ttl) * time.Second}
	for _, srv := range srvs {
		hosts, ttl := a.hosts(ctx, srv.Target, resp)
		ans.ttl = min(ans.ttl, ttl, time.Duration(srv.Hdr.Ttl)*time.Second)
		for _, host := range hosts {
			ans.addrs = append(ans.addrs, net.JoinHostPort(host, strconv.Itoa(int(srv.Port))))
		}
	}
	return ans, nil
}

// hosts finds the addresses of an SRV target: in the additional section, else
// by a question of its own, else it is the name itself, left to the system's
// resolver when the address is dialled (a service registered under a name that
// Consul does not serve).
func (a asker) hosts(ctx context.Context, target string, resp *dns.Msg) ([]string, time.Duration) {
	if hosts, ttl := addresses(target, resp.Extra); len(hosts) > 0 {
		return hosts, ttl
	}
	for _, kind := range []uint16{dns.TypeA, dns.TypeAAAA} {
		if more, err := a.exchange(ctx, target, kind); err == nil {
			if hosts, ttl := addresses(target, more.Answer); len(hosts) > 0 {
				return hosts, ttl
			}
		}
	}
	return []string{strings.TrimSuffix(target, ".")}, 0
}

// addresses collects the A and AAAA records of name, following CNAMEs within
// records.
func addresses(name string, records []dns.RR) ([]string, time.Duration) {
	var hosts []string
	ttl := time.Duration(-1)
	note := func(h *dns.RR_Header) {
		if t := time.Duration(h.Ttl) * time.Second; ttl < 0 || t < ttl {
			ttl = t
		}
	}
	for _, rr := range records {
		if !strings.EqualFold(rr.Header().Name, name) {
			continue
		}
		switch rr := rr.(type) {
		case *dns.A:
			hosts = append(hosts, rr.A.String())
			note(&rr.Hdr)
		case *dns.AAAA:
			hosts = append(hosts, rr.AAAA.String())
			note(&rr.Hdr)
		case *dns.CNAME:
			name = rr.Target
			note(&rr.Hdr)
		}
	}
	return hosts, max(ttl, 0)
}

// exchange asks over UDP, twice when the first is lost, and over TCP when the
// answer did not fit.
func (a asker) exchange(ctx context.Context, name string, kind uint16) (*dns.Msg, error) {
	q := new(dns.Msg)
	q.SetQuestion(name, kind)
	q.SetEdns0(udpSize, false)
	resp, _, err := a.udp.ExchangeContext(ctx, q, a.addr)
	if err != nil && isTimeout(err) {
		resp, _, err = a.udp.ExchangeContext(ctx, q, a.addr)
	}
	if err == nil && resp.Truncated {
		resp, _, err = a.tcp.ExchangeContext(ctx, q, a.addr)
	}
	if err != nil {
		return nil, fmt.Errorf("asking dns at %s for %s: %w", a.addr, name, err)
	}
	switch resp.Rcode {
	case dns.RcodeSuccess:
		return resp, nil
	case dns.RcodeNameError:
		return nil, fmt.Errorf("%s %s: %w", dns.TypeToString[kind], name, ErrUnknown)
	default:
		return nil, fmt.Errorf("asking dns at %s for %s: answered %s", a.addr, name, dns.RcodeToString[resp.Rcode])
	}
}

func isTimeout(err error) bool {
	var ne net.Error
	return errors.As(err, &ne) && ne.Timeout()
}
