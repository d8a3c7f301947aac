output "machines" {
  description = "Addresses by name."
  value = {
    for name, machine in aws_instance.machine : name => {
      private = machine.private_ip
      public  = machine.public_ip
      roles   = local.machines[name].roles
    }
  }
}
