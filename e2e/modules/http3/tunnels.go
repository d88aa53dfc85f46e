package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"

	"github.com/quic-go/quic-go"
	"github.com/quic-go/quic-go/http3"
	"golang.org/x/net/websocket"
)

// Gives messages back, to whatever origin.
var mirrored = websocket.Server{Handler: func(socket *websocket.Conn) {
	for {
		var message []byte
		if websocket.Message.Receive(socket, &message) != nil || websocket.Message.Send(socket, message) != nil {
			return
		}
	}
}}

// Opens a stream with CONNECT, for a protocol or for none.
func (c *checker) connect(ctx context.Context, path, protocol string, status int) (*http3.RequestStream, *http.Response, error) {
	conn, err := quic.DialAddr(ctx, c.address, http3.ConfigureTLSConfig(c.tls()), nil)
	if err != nil {
		return nil, nil, err
	}
	context.AfterFunc(ctx, func() { _ = conn.CloseWithError(0x100, "") })
	client := new(http3.Transport).NewClientConn(conn)
	select {
	case <-ctx.Done():
		return nil, nil, ctx.Err()
	case <-client.ReceivedSettings():
	}
	if !client.Settings().EnableExtendedConnect {
		return nil, nil, errors.New("extended CONNECT is not offered")
	}
	request, err := http.NewRequest(http.MethodConnect, c.url(path), nil)
	if err != nil {
		return nil, nil, err
	}
	request.Proto = protocol
	if protocol == "" {
		request.Host = c.host + ":443"
	} else {
		request.Header.Set("sec-websocket-version", "13")
	}
	stream, err := client.OpenRequestStream(ctx)
	if err != nil {
		return nil, nil, err
	}
	if err := stream.SendRequestHeader(request); err != nil {
		return nil, nil, err
	}
	response, err := stream.ReadResponse()
	if err != nil {
		return nil, nil, err
	}
	if response.StatusCode != status {
		return nil, nil, fmt.Errorf("%s instead of %d", response.Status, status)
	}
	return stream, response, nil
}

// A message of a client's; its mask changes nothing (RFC 6455 section 5.2).
func message(payload []byte, masked bool) []byte {
	frame := []byte{0x82}
	mask := byte(0)
	if masked {
		mask = 0x80
	}
	switch length := len(payload); {
	case length < 126:
		frame = append(frame, mask|byte(length))
	case length < 1<<16:
		frame = binary.BigEndian.AppendUint16(append(frame, mask|126), uint16(length))
	default:
		frame = binary.BigEndian.AppendUint64(append(frame, mask|127), uint64(length))
	}
	if masked {
		frame = append(frame, 0, 0, 0, 0)
	}
	return append(frame, payload...)
}

// WebSockets by extended CONNECT (RFC 9220).
func (c *checker) websocket() error {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	stream, response, err := c.connect(ctx, "/socket", "websocket", http.StatusOK)
	if err != nil {
		return err
	}
	for _, name := range []string{"upgrade", "connection", "sec-websocket-accept"} {
		if value := response.Header.Get(name); value != "" {
			return fmt.Errorf("%s: %s", name, value)
		}
	}
	for _, length := range []int{2, 1000, small} {
		payload := random(length)
		sent := make(chan error, 1)
		go func() {
			_, err := stream.Write(message(payload, true))
			sent <- err
		}()
		expected := message(payload, false)
		got := make([]byte, len(expected))
		if _, err := io.ReadFull(stream, got); err != nil {
			return err
		}
		if !bytes.Equal(got, expected) {
			return fmt.Errorf("a message of %d bytes came back as another", length)
		}
		if err := <-sent; err != nil {
			return err
		}
	}
	// Close, of which the other side says the same and ends.
	if _, err := stream.Write([]byte{0x88, 0x80, 0, 0, 0, 0}); err != nil {
		return err
	}
	_, err = io.Copy(io.Discard, stream)
	return err
}

// An upgrade that is not allowed, and a tunnel that is: a request in it, and its response until the end.
func (c *checker) tunnel() error {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if _, _, err := c.connect(ctx, "/", "connect-ip", http.StatusForbidden); err != nil {
		return err
	}
	stream, _, err := c.connect(ctx, "", "", http.StatusOK)
	if err != nil {
		return err
	}
	request := "GET /bytes/" + strconv.Itoa(small) + " HTTP/1.1\r\nHost: inner\r\nConnection: close\r\n\r\n"
	if _, err := stream.Write([]byte(request)); err != nil {
		return err
	}
	reader := bufio.NewReader(stream)
	response, err := http.ReadResponse(reader, nil)
	if err != nil {
		return err
	}
	length, err := io.Copy(io.Discard, response.Body)
	if err != nil || length != small {
		return fmt.Errorf("%d bytes of %d: %w", length, small, err)
	}
	// The backend has ended the tunnel.
	_, err = reader.ReadByte()
	if err != io.EOF {
		return fmt.Errorf("after the response: %v", err)
	}
	return nil
}
