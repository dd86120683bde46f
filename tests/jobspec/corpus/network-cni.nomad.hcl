job "network-cni" {
  group "app" {
    network {
      mode = "cni/mynet"
      cni {
        args = {
          nodeAddress = "${attr.unique.network.ip-address}"
          zone        = "a"
        }
      }
    }

    task "main" {
      driver = "docker"

      config {
        image = "alpine:3.20"
      }
    }
  }
}
