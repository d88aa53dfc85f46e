// Command geoip writes a database of MaxMind's format that puts 192.0.2.0/24 into a country.
//
//	geoip FILE COUNTRY
package main

import (
	"log"
	"net"
	"os"

	"github.com/maxmind/mmdbwriter"
	"github.com/maxmind/mmdbwriter/mmdbtype"
)

func main() {
	if len(os.Args) != 3 {
		log.Fatal("usage: geoip FILE COUNTRY")
	}
	if err := write(os.Args[1], os.Args[2]); err != nil {
		log.Fatal(err)
	}
}

func write(path, country string) error {
	tree, err := mmdbwriter.New(mmdbwriter.Options{
		DatabaseType: "GeoLite2-Country",
		// The networks for documentation are among them.
		IncludeReservedNetworks: true,
	})
	if err != nil {
		return err
	}
	_, network, err := net.ParseCIDR("192.0.2.0/24")
	if err != nil {
		return err
	}
	record := mmdbtype.Map{"country": mmdbtype.Map{"iso_code": mmdbtype.String(country)}}
	if err := tree.Insert(network, record); err != nil {
		return err
	}
	file, err := os.Create(path)
	if err != nil {
		return err
	}
	if _, err := tree.WriteTo(file); err != nil {
		return err
	}
	return file.Close()
}
