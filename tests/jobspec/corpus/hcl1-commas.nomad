job "hcl1-commas" {
  datacenters = ["dc1"],
  type = "service",

  group "web" {
    count = 2,

    task "nginx" {
      driver = "docker",
      config {
        image = "nginx",
        port_map {
          http = 80,
        }
      },
      resources {
        cpu = 100,
        memory = 64,
      },
    },
  },
},
